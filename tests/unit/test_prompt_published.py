"""The published training prompt, and prompts to which the tokenizer adds nothing."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from test_prompt import CHATML, LLAMA, LLAMA_3, RECORD, CharacterTokenizer

from notebook_prompt import notebook_text
from sqlquarry import PromptFormatter, Record
from sqlquarry.errors import ConfigError, IncompleteArtifactError, RecordError
from sqlquarry.prompt import HUMAN_ASSISTANT, BoundTokens

awkward = st.one_of(st.text(), st.text(st.sampled_from("\"'{}%#\n\t `\\aZé漢\u2028"))).map(str.strip).filter(bool)


@given(st.builds(Record, awkward, awkward, awkward))
@example(Record('Who\'s "{question}"?\n{{ bos_token }}', "CREATE TABLE a (b TEXT);\n\n-- {schema}", "SELECT '{}'\n  x"))
def test_the_published_prompt_equals_the_notebooks(record):
    bound = PromptFormatter.published().bind(LLAMA)
    eos = LLAMA.eos_token

    assert bound.text(record) == notebook_text(record, eos_token=eos)
    prompt = notebook_text(record.asked, eos_token=eos, add_generation_prompt=True)
    assert bound.prompt(record) == prompt
    assert prompt.endswith("Assistant: ")
    assert bound.completion(record) == f"{record.sql}{eos}"
    assert bound.prompt(record) + bound.completion(record) == bound.text(record)


def test_only_white_space_at_the_ends_of_a_record_differs_from_the_notebook():
    padded = Record(f" {RECORD.question}\n", f"\n{RECORD.schema} ", f"\t{RECORD.sql} ")
    bound = PromptFormatter.published().bind(LLAMA)

    assert bound.text(padded) == bound.text(RECORD) == notebook_text(RECORD, eos_token=LLAMA.eos_token)
    assert bound.text(padded) != notebook_text(padded, eos_token=LLAMA.eos_token)


def test_the_default_prompt_differs_from_the_published_one_in_two_spaces_and_bos():
    default, published = PromptFormatter().bind(LLAMA), PromptFormatter.published().bind(LLAMA)

    assert published.prompt(RECORD) == default.prompt(RECORD).replace("database. You", "database.You") + " "
    assert default.encode(RECORD, LLAMA).input_ids[0] == LLAMA.bos_token_id
    assert LLAMA.bos_token_id not in published.encode(RECORD, LLAMA).input_ids


@pytest.mark.parametrize("template", ["human-assistant", "chat", "{{ bos_token }}" + HUMAN_ASSISTANT])
def test_only_the_template_writes_bos_if_the_tokenizer_must_not_add_it(template: str):
    bound = PromptFormatter(template=template, add_special_tokens=False).bind(LLAMA)
    encoded = bound.encode(RECORD, LLAMA)

    assert bound.tokens is not None
    assert not bound.tokens.adds_bos
    assert LLAMA.bos_token_id not in encoded.input_ids  # one token per character, so the text of BOS becomes other ids
    assert bound.prompt(RECORD).count(str(LLAMA.bos_token)) == (template != "human-assistant")
    assert bound.text(RECORD).count(str(LLAMA.bos_token)) == (template != "human-assistant")
    # A server that renders messages adds no special tokens, and neither did the training.
    expected = {"human-assistant": HUMAN_ASSISTANT, "chat": LLAMA_3}
    assert bound.chat_template == expected.get(template, template)


def test_the_text_keeps_white_space_that_the_completion_leaves_out():
    bound = PromptFormatter(template="chat").bind(CharacterTokenizer(chat_template=CHATML))

    assert bound.text(RECORD) == bound.prompt(RECORD) + bound.completion(RECORD) + "\n"
    with pytest.raises(RecordError, match=r"\br7\b.*\bsql\b"):
        bound.text(Record("q", "s", id="r7"))


@pytest.mark.parametrize("formatter", [PromptFormatter(), PromptFormatter().bind(LLAMA)])
def test_the_file_of_a_default_prompt_is_that_of_earlier_versions(tmp_path: Path, formatter: PromptFormatter):
    formatter.save(tmp_path)
    content = json.loads((tmp_path / "prompt.json").read_text())

    assert content.keys() == {"system", "user", "template", "tokens", "fingerprint"}
    (tmp_path / "prompt.json").write_text(json.dumps(content | {"add_special_tokens": True}))
    assert PromptFormatter.load(tmp_path) == formatter


@pytest.mark.parametrize("tokenizer", [None, LLAMA])
def test_a_prompt_without_special_tokens_is_saved_and_has_its_own_fingerprint(tmp_path: Path, tokenizer: Any):
    formatter, default = PromptFormatter(add_special_tokens=False), PromptFormatter()
    if tokenizer:
        formatter, default = formatter.bind(tokenizer), default.bind(dataclasses.replace(tokenizer, adds_bos=False))
        assert formatter.tokens == default.tokens
    formatter.save(tmp_path)

    assert PromptFormatter.load(tmp_path) == formatter
    assert formatter.fingerprint != default.fingerprint
    content = json.loads((tmp_path / "prompt.json").read_text())
    for edited in ({**content, "add_special_tokens": True}, {**content, "add_special_tokens": 0}):
        (tmp_path / "prompt.json").write_text(json.dumps(edited))
        with pytest.raises(IncompleteArtifactError, match=r"prompt\.json"):
            PromptFormatter.load(tmp_path)


def test_tokens_that_were_bound_with_special_tokens_are_refused():
    tokens = BoundTokens(HUMAN_ASSISTANT, "<s>", "</s>", adds_bos=True, stop="</s>")
    with pytest.raises(ConfigError, match=r"\badd_special_tokens\b.*\badds_bos\b"):
        PromptFormatter(tokens=tokens, add_special_tokens=False)


def test_a_tokenizer_that_ends_every_text_may_be_used_without_its_special_tokens():
    class EndsTexts(CharacterTokenizer):
        def __call__(self, text: str | list[str], *, add_special_tokens: bool = True) -> dict[str, list[Any]]:
            answer = super().__call__(text, add_special_tokens=add_special_tokens)
            ends = add_special_tokens and isinstance(text, str)
            return {"input_ids": answer["input_ids"] + [self.eos_token_id] * ends}

    with pytest.raises(ConfigError, match="EOS"):
        PromptFormatter().bind(EndsTexts())
    assert PromptFormatter(add_special_tokens=False).bind(EndsTexts()).prompt(RECORD).endswith("Assistant:")
