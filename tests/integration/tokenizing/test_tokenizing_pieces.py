"""Test that records encoded by pieces get exactly the ids of their whole texts, for each kind of tokenizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

import tokenizer_shapes as shapes
from sqlquarry import PromptFormatter, Record
from sqlquarry.errors import RecordError
from sqlquarry.tokenizing.batches import BatchEncoder
from sqlquarry.tokenizing.borders import find_borders
from sqlquarry.tokenizing.encoded import IGNORED_LABEL, Encoded
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.training.encoding.whole_text import encode_whole

from conftest import tiny_tokenizer, toy_examples

BY_PIECES = (
    "llama 3",
    "qwen 2.5",
    "qwen 3",
    "smollm",
    "neox",
    "prefix space",
    "llama 2",
    "tinyllama",
    "legacy",
    "mistral 0.1",
    "mistral 0.3",
    "metaspace llama",
    "chatml",
    "ordinary tokens",
    "splitting special tokens",
    "normalized True or not, special False",
    "normalized False or not, special True",
)
AS_WHOLE = ("code llama", "stripping tokens", "flags differ")
TURNS = (
    "{% for m in messages %}{{ '[' + m['role'] + ']\n' + m['content'] + eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '[assistant]\n' }}{% endif %}"
)
# It depends on the texts, so the layout of one record says nothing about the next one.
READS_TEXTS = TURNS.replace(
    "m['content']", "(m['content'] | replace('a', 'b') if '~' in m['content'] else m['content'])"
)
NOTED = {
    "system": "Use {dialect}: {schema}\nRules: {notes}\n\nBe brief.",
    "user": "Notes ({notes}) for {question} here",
}
FORMATTERS = {
    "default": PromptFormatter(),
    "without BOS": PromptFormatter(add_special_tokens=False),
    "published": PromptFormatter.published(),
    "turns": PromptFormatter(template=TURNS),
    "texts at the ends": PromptFormatter(template=TURNS, system="{schema}", user="{question}"),
    "texts together": PromptFormatter(system="", user="{question}{schema} {question} {{x}} {"),
    "notes": PromptFormatter(template=TURNS, **NOTED),
    "reads texts": PromptFormatter(template=READS_TEXTS),
}
TOKENS = ("</s>", "<s>", "<|im_end|>", "<|im_start|>", "<|eot_id|>", "[INST]", "<tool_call>", "<|begin_of_text|>")
FRAGMENTS = (
    *TOKENS,
    *" \n\t▁\x1c\xa0\u2028\u200b\ufeff",  # kinds of white space, and what is almost white space
    *"éÅ漢😀½ﬁ\u0301\u0338\u0345\u1100\u1161\u212b\ue000",  # what NFC joins or replaces
    *(
        "  ",
        "\r\n",
        "'",
        "'s",
        "12",
        "3",
        "users",
        "How",
        "(",
        ");",
        "<",
        "|>",
        "</",
        "{schema}",
        "{{",
        "}",
        "%s",
        "~a",
    ),
)
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=6).map("".join) | st.text(max_size=8)
filled = hostile.filter(str.strip)
answers = filled.filter(lambda sql: not any(token in sql for token in shapes.CHATML.split("'") + list(TOKENS)))
records = st.builds(
    Record,
    filled,
    filled,
    answers,
    dialect=st.sampled_from(["sqlite", "postgres"]),
    notes=st.just("") | hostile,
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@cache
def loaded(name: str, place: Path) -> Any:
    return AutoTokenizer.from_pretrained(shapes.write(shapes.SHAPES[name], place / name.replace(" ", "-")))


def by_whole_texts(some: Sequence[Record], formatter: PromptFormatter, tokenizer: Any) -> list[Encoded]:
    """Encode records as one would without any thought of speed."""
    found = []
    for record in some:
        prompt = tokenizer(formatter.prompt(record, tokenizer), add_special_tokens=formatter.add_special_tokens)
        answer = tokenizer(formatter.completion(record, tokenizer), add_special_tokens=False)["input_ids"]
        ids = prompt["input_ids"]
        found.append(Encoded([*ids, *answer], [IGNORED_LABEL] * len(ids) + answer))
    return found


LITERALS = st.sampled_from(
    [
        "You can use the following table schema for context: ",
        "\n\nHuman: Return the SQL query: ",
        "</s>\n\nAssistant:",
        "<|im_end|>\n<|im_start|>user\n",
        "x <s> y",
        "x</s> y",
        " a b ",
        "1 2",
        "a  b",
        "▁ ▁ a ▁ b",
        "é x é y",
        "/ / \n / a",
        "don't s 's ' s",
        "'s (users) How",
    ]
)


@settings(max_examples=300)
@given(name=st.sampled_from(BY_PIECES), before=hostile, literal=LITERALS, after=hostile)
@example("mistral 0.1", "", "x</s> y", "")  # the space between a word and an added token is a text of its own
@example("mistral 0.1", "", "x <s> y", "")
@example("normalized False or not, special True", "a", "<|im_start|>user\n", "")  # found only behind a space
def test_no_token_crosses_a_border(place: Path, name: str, before: str, literal: str, after: str):
    batches = BatchEncoder(loaded(name, place))
    assert batches.backend is not None
    borders = find_borders(batches.backend)
    assert borders is not None

    for border in borders.within(literal):
        parts = before + literal[: border.place], literal[border.place + border.skipped :] + after
        whole, *parted = batches.ids([before + literal + after, *parts], add_special_tokens=False)
        assert whole == parted[0] + parted[1], (border, before + literal + after)


@settings(max_examples=150)
@given(
    name=st.sampled_from(BY_PIECES + AS_WHOLE),
    kind=st.sampled_from(sorted(FORMATTERS)),
    some=st.lists(records, min_size=1, max_size=6),
)
def test_records_get_the_ids_of_their_whole_texts(place: Path, name: str, kind: str, some: list[Record]):
    tokenizer = loaded(name, place)
    formatter = FORMATTERS[kind].bind(tokenizer)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sqlquarry.tokenizing.pieces._varied", lambda _: [])  # which would hide a wrong proof
        encoded = formatter.encode_all(some, tokenizer)
    assert list(encoded) == by_whole_texts(some, formatter, tokenizer)
    texts = [formatter.text(record) for record in some]
    whole = tokenizer(texts, add_special_tokens=formatter.add_special_tokens)["input_ids"]
    assert list(encode_whole(some, formatter, tokenizer)) == [Encoded(ids, ids) for ids in whole]


def given_texts(monkeypatch: pytest.MonkeyPatch, encode: Callable[[], object]) -> list[str]:
    """Return the texts that the tokenizer gets, without those of the check at the beginning."""
    texts: list[list[str]] = []
    original = BatchEncoder.ids

    def ids(self: BatchEncoder, some: Any, *, add_special_tokens: bool) -> Any:
        texts.append(list(some))
        return original(self, texts[-1], add_special_tokens=add_special_tokens)

    monkeypatch.setattr(BatchEncoder, "ids", ids)
    encode()
    return [text for some in texts[-3:] for text in dict.fromkeys(some)]


SOME = [Record(e["question"], e["schema"], e["sql"]) for e in toy_examples(40)]


@pytest.mark.parametrize("name", BY_PIECES)
@pytest.mark.parametrize("kind", ["default", "turns", "notes"])
def test_what_records_share_is_encoded_once(place: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: str):
    tokenizer = loaded(name, place)
    formatter = FORMATTERS[kind].bind(tokenizer)
    texts = given_texts(monkeypatch, lambda: formatter.encode_all(SOME, tokenizer))

    schemas = [text for text in texts if "CREATE TABLE" in text]
    assert len(schemas) == len({record.schema for record in SOME})
    assert not any(record.question in text for text in schemas for record in SOME)
    constant = "How" if kind == "notes" else "You are a powerful"
    assert sum(constant in text for text in texts) <= (len(SOME) if kind == "notes" else 1)


@pytest.mark.parametrize("name", AS_WHOLE)
def test_whole_texts_are_encoded_if_nothing_is_known_of_the_tokenizer(
    place: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    tokenizer = loaded(name, place)
    formatter = PromptFormatter().bind(tokenizer)
    texts = given_texts(monkeypatch, lambda: formatter.encode_all(SOME * 2, tokenizer))

    prompts = {formatter.prompt(record) for record in SOME}
    assert len(prompts & set(texts)) == len(prompts)
    assert len(texts) == len(prompts) + len({formatter.completion(record) for record in SOME})


def fast(backend: Tokenizer, **options: Any) -> Any:
    backend.add_special_tokens(["</s>"])
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", **options)


def byte_level(change: Callable[[Tokenizer], object]) -> Any:
    backend = tiny_tokenizer().backend_tokenizer
    change(backend)
    return fast(backend)


def crossing(*, ignore_merges: bool = False) -> Any:
    """Return a tokenizer without words, which learned tokens such as "context:▁" and "▁How▁many"."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True, ignore_merges=ignore_merges))
    backend.normalizer = normalizers.Replace(" ", "▁")
    backend.decoder = decoders.Replace("▁", " ")
    bytes_ = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=700, show_progress=False, special_tokens=bytes_)
    formatter = PromptFormatter().bind(tiny_tokenizer())
    backend.train_from_iterator([formatter.text(record) for record in SOME], trainer)
    return fast(backend)


def sequence(*steps: Any) -> Any:
    return pre_tokenizers.Sequence(list(steps))


def split(pattern: str) -> Any:
    return pre_tokenizers.Split(Regex(pattern), "isolated")


BYTES = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
# Each of these tokenizers joins, cuts or changes text across a space, or might.
UNKNOWN: dict[str, Callable[[], Any]] = {
    "no words": lambda: byte_level(lambda one: setattr(one, "pre_tokenizer", BYTES)),
    "words across spaces": lambda: byte_level(
        lambda one: setattr(one, "pre_tokenizer", sequence(split(r"\w+ \w+"), BYTES))
    ),
    "one more word": lambda: byte_level(
        lambda one: setattr(one, "pre_tokenizer", sequence(split(shapes.LLAMA_3_WORDS + r"|: C"), BYTES))
    ),
    "bytes before words": lambda: byte_level(
        lambda one: setattr(one, "pre_tokenizer", sequence(BYTES, split(shapes.LLAMA_3_WORDS)))
    ),
    "looks behind": lambda: byte_level(
        lambda one: setattr(one, "pre_tokenizer", sequence(split(r"(?<=: )\w+|\s+|\S"), BYTES))
    ),
    "NFKC": lambda: byte_level(lambda one: setattr(one, "normalizer", normalizers.NFKC())),
    "strip": lambda: byte_level(lambda one: setattr(one, "normalizer", normalizers.Strip())),
    "takes spaces before": lambda: byte_level(lambda one: one.add_tokens([AddedToken("Human", lstrip=True)])),
    "takes spaces behind": lambda: byte_level(lambda one: one.add_tokens([AddedToken("context:", rstrip=True)])),
    "single word": lambda: byte_level(lambda one: one.add_tokens([AddedToken("query", single_word=True)])),
    "spaces in a token": lambda: byte_level(lambda one: one.add_tokens([AddedToken("Return the SQL")])),
}


@pytest.mark.parametrize("name", UNKNOWN)
def test_a_tokenizer_with_an_unknown_step_has_no_borders(name: str):
    tokenizer = UNKNOWN[name]()
    assert find_borders(tokenizer.backend_tokenizer) is None
    formatter = PromptFormatter(template=TURNS).bind(tokenizer)
    assert list(formatter.encode_all(SOME, tokenizer)) == by_whole_texts(SOME, formatter, tokenizer)


@pytest.mark.parametrize("name", ["llama 3", "tinyllama"])
def test_a_border_is_between_visible_characters_of_ascii(place: Path, name: str):
    borders = find_borders(loaded(name, place).backend_tokenizer)
    assert borders is not None

    literal = " a b  c d é f\n g\t h i </s> j"
    assert {border.place for border in borders.within(literal)} - {literal.index("</s>")} == {
        literal.index(found) for found in (" b", " d", " i")
    }


def test_borders_are_only_where_the_vocabulary_has_no_token():
    tokenizer = crossing()
    borders = find_borders(tokenizer.backend_tokenizer)
    assert borders is not None
    joined = {
        token[place - 1] for token in tokenizer.get_vocab() for place in range(1, len(token)) if token[place] == "▁"
    }
    assert {":", "s"} <= joined
    assert "(" not in joined

    literal = "for context: Users ( x"
    assert [border.place for border in borders.within(literal)] == [literal.index("( x") + 1]
    assert find_borders(crossing(ignore_merges=True).backend_tokenizer) is None
    formatter = PromptFormatter().bind(tokenizer)
    assert list(formatter.encode_all(SOME, tokenizer)) == by_whole_texts(SOME, formatter, tokenizer)


def test_a_template_that_reads_a_text_gets_the_whole_text(place: Path):
    tokenizer = loaded("llama 3", place)
    formatter = FORMATTERS["reads texts"].bind(tokenizer)
    some = [*SOME, dataclasses.replace(SOME[0], question="How many ~a users are there?")]
    assert "~b" in formatter.prompt(some[-1])

    assert list(formatter.encode_all(some, tokenizer)) == by_whole_texts(some, formatter, tokenizer)


def test_special_tokens_at_both_ends_stay_there(monkeypatch: pytest.MonkeyPatch):
    def frame(backend: Tokenizer) -> None:
        ends = [("<|endoftext|>", 0), ("<|pad|>", 3)]
        one = processors.TemplateProcessing(single="<|endoftext|> $A <|pad|>", special_tokens=ends)
        backend.post_processor = processors.Sequence([processors.ByteLevel(), one])

    tokenizer = byte_level(frame)
    formatter = PromptFormatter().bind(tokenizer)
    expected = by_whole_texts(SOME, formatter, tokenizer)
    found: list[Encoded] = []
    texts = given_texts(monkeypatch, lambda: found.extend(formatter.encode_all(SOME, tokenizer)))

    assert found == expected
    assert found[0].input_ids.count(0) == found[0].input_ids.count(3) == 1
    assert formatter.prompt(SOME[0]) not in texts


def test_a_wrong_proof_is_noticed(monkeypatch: pytest.MonkeyPatch):
    tokenizer = crossing()
    formatter = PromptFormatter().bind(tokenizer)
    monkeypatch.setattr(
        "sqlquarry.tokenizing.pieces.find_borders", lambda _: find_borders(tiny_tokenizer().backend_tokenizer)
    )

    assert list(formatter.encode_all(SOME, tokenizer)) == by_whole_texts(SOME, formatter, tokenizer)


@pytest.mark.parametrize("name", ["llama 3", "llama 2"])
def test_options_of_the_backend_do_not_apply(place: Path, monkeypatch: pytest.MonkeyPatch, name: str):
    tokenizer = loaded(name, place)
    formatter = PromptFormatter().bind(tokenizer)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding(length=300)
    tokenizer.backend_tokenizer.encode_special_tokens = True

    found: list[Encoded] = []
    texts = given_texts(monkeypatch, lambda: found.extend(formatter.encode_all(SOME, tokenizer)))

    assert found == by_whole_texts(SOME, formatter, tokenizer)
    assert formatter.prompt(SOME[0]) not in texts


@pytest.mark.parametrize(
    "truncation", [None, {"max_length": 8, "stride": 0, "strategy": "LongestFirst", "direction": "Right"}]
)
def test_a_reading_of_files_encodes_as_it_reads(truncation: dict[str, object] | None):
    files = shapes.SHAPES["llama 3"]
    tokenizer = FileTokenizer(files["tokenizer.json"] | {"truncation": truncation}, files["tokenizer_config.json"])
    formatter = PromptFormatter().bind(tokenizer)

    encoded = formatter.encode_all(SOME, tokenizer)

    assert list(encoded) == by_whole_texts(SOME, formatter, tokenizer)
    assert max(encoded.prompt_lengths) == 8 if truncation else min(encoded.prompt_lengths) > 8


def test_a_step_in_python_has_no_borders():
    class Step:
        def pre_tokenize(self, text: Any) -> None:
            text.split(lambda _, part: [part])

    backend = tiny_tokenizer().backend_tokenizer
    assert find_borders(backend) is not None
    backend.pre_tokenizer = pre_tokenizers.PreTokenizer.custom(Step())
    assert find_borders(backend) is None


class Slow:
    """A tokenizer without a Rust backend, which cannot encode "|"."""

    bos_token, eos_token, bos_token_id, eos_token_id, chat_template = None, "</s>", None, 0, None

    def __call__(self, text: Any, *, add_special_tokens: bool = True) -> dict[str, Any]:
        if isinstance(text, str):
            if "|" in text:
                raise ValueError("no token for |")
            return {"input_ids": [7] * add_special_tokens + [ord(character) for character in text]}
        return {"input_ids": [self(one, add_special_tokens=add_special_tokens)["input_ids"] for one in text]}


class Louder(PreTrainedTokenizerFast):
    """A tokenizer of transformers that changes texts before the backend gets them."""

    def _encode_plus(self, text: Any, *args: Any, **options: Any) -> Any:
        louder = [one.upper() for one in text] if isinstance(text, list) else text.upper()
        return super()._encode_plus(louder, *args, **options)


def test_a_tokenizer_that_does_more_than_its_backend_is_called_itself():
    slow, louder = Slow(), Louder(tokenizer_object=tiny_tokenizer().backend_tokenizer, eos_token="<|im_end|>")
    for tokenizer in (slow, louder):
        formatter = PromptFormatter(template=TURNS)
        assert list(formatter.encode_all(SOME, tokenizer)) == by_whole_texts(SOME, formatter, tokenizer)
    with pytest.raises(ValueError, match=r"\|"):
        PromptFormatter().encode_all([*SOME, Record("q | r", "s", "t")], slow)


def test_errors_of_records_stay_as_they_are(place: Path):
    tokenizer = loaded("llama 3", place)
    formatter = PromptFormatter().bind(tokenizer)
    with pytest.raises(RecordError, match="unanswered"):
        formatter.encode_all([*SOME, Record("q", "s", id="unanswered")], tokenizer)
    with pytest.raises(RecordError, match="stops"):
        formatter.encode_all([*SOME, Record("q", "s", "a <|eot_id|> b", id="stops")], tokenizer)
