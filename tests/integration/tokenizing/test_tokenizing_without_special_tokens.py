"""Test with transformers 5 that a prompt without special tokens is served with the tokens of its training."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from test_tokenizing_prompts import LLAMA_3, TOKENIZERS, records
from test_tokenizing_trained_reading import LOADABLE

import tokenizer_shapes as shapes
from notebook_prompt import NOTEBOOK_TEMPLATE, notebook_messages, notebook_text
from sqlquarry import PromptFormatter, Record
from sqlquarry.tokenizing.encoded import IGNORED_LABEL
from sqlquarry.tokenizing.special_token_removal import files_without_special_tokens
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@cache
def pair(name: str, place: Path) -> tuple[Any, Any]:
    """Return the tokenizers that transformers 5 loads from the original and from the changed files."""
    from transformers import AutoTokenizer

    directory = shapes.write(shapes.SHAPES[name], place / name.replace(" ", "-"))
    before = AutoTokenizer.from_pretrained(directory)
    after = files_without_special_tokens(TokenizerFiles.in_directory(directory))
    shapes.write({"tokenizer.json": after.tokenizer, "tokenizer_config.json": after.config}, directory)
    return before, AutoTokenizer.from_pretrained(directory)


@pytest.mark.parametrize("name", LOADABLE)
def test_transformers_5_adds_no_tokens_after_the_change(place: Path, name: str) -> None:
    before, changed = pair(name, place)

    for prompt in shapes.PROMPTS:
        assert changed(prompt)["input_ids"] == before(prompt, add_special_tokens=False)["input_ids"], prompt
    for key in ("bos_token", "eos_token", "unk_token", "pad_token"):
        assert getattr(changed, key) == getattr(before, key)


@settings(max_examples=80)
@given(
    name=st.sampled_from(["tinyllama", "legacy", "chatml", "llama 3", "code llama", "eos", "distilled qwen"]),
    text=st.one_of(st.text(), st.lists(st.sampled_from(["</s>", "<|im_end|>", " ", "\n", "a b", "é"])).map("".join)),
)
def test_any_text_gets_the_ids_that_it_had_without_special_tokens_in_transformers_5(
    place: Path, name: str, text: str
) -> None:
    before, changed = pair(name, place)
    assert changed(text)["input_ids"] == before(text, add_special_tokens=False)["input_ids"]


@given(record=records)
@example(Record('Who\'s "{x}"?\n\n{{ bos_token }}', "CREATE TABLE a (b TEXT);\n -- {schema}", "SELECT '{}'\n  x"))
def test_the_published_text_is_what_apply_chat_template_renders(record: Record) -> None:
    tokenizer = TOKENIZERS["llama 3"]
    bound = PromptFormatter.published().bind(tokenizer)
    stripped = Record(record.question.strip(), record.schema.strip(), str(record.sql).strip())

    def rendered(record: Record, **options: Any) -> str:
        messages = notebook_messages(record)
        text = tokenizer.apply_chat_template(messages, chat_template=NOTEBOOK_TEMPLATE, tokenize=False, **options)
        return str(text)

    assert bound.text(record) == rendered(stripped) == notebook_text(stripped, eos_token=tokenizer.eos_token)
    assert bound.prompt(record) == rendered(stripped.asked, add_generation_prompt=True)


@pytest.mark.parametrize("template", ["published", "human-assistant", "chat", LLAMA_3])
@given(record=records)
def test_training_and_both_ways_of_serving_use_the_same_tokens(template: str, record: Record) -> None:
    tokenizer = TOKENIZERS["llama 3"]
    formatter = (
        PromptFormatter.published()
        if template == "published"
        else PromptFormatter(template=template, add_special_tokens=False)
    )
    bound = formatter.bind(tokenizer)
    ids, labels = bound.encode(record, tokenizer)
    prompt = ids[: labels.count(IGNORED_LABEL)]

    # The merged model's tokenizer adds nothing.
    assert tokenizer(bound.prompt(record), add_special_tokens=False)["input_ids"] == prompt
    messages = tokenizer.apply_chat_template(
        bound.messages(record.asked), chat_template=bound.chat_template, add_generation_prompt=True, return_dict=False
    )
    assert messages == prompt
    writes_bos = template in ("chat", LLAMA_3)
    assert (prompt[0] == tokenizer.bos_token_id) == writes_bos


def test_the_space_before_the_answer_is_a_token_only_if_the_prompt_is_tokenized_alone() -> None:
    tokenizer = TOKENIZERS["llama 3"]
    record = Record("How many users are there?", "CREATE TABLE users (id)", "SELECT COUNT(*) FROM users")
    bound = PromptFormatter.published().bind(tokenizer)
    ids, labels = bound.encode(record, tokenizer)
    whole = tokenizer(bound.text(record), add_special_tokens=False)["input_ids"]
    border = labels.count(IGNORED_LABEL)

    assert tokenizer.decode(ids) == tokenizer.decode(whole) == bound.text(record)
    assert whole[: border - 1] == ids[: border - 1]
    assert tokenizer.convert_ids_to_tokens(whole[border - 2 : border]) == [":", "ĠSELECT"]
    assert tokenizer.convert_ids_to_tokens(ids[border - 2 : border]) == [":", "Ġ"]
    assert tokenizer.decode(ids[border:]).startswith("SELECT")
    # The default prompt leaves the space to the answer, so both ways give the same tokens.
    default = PromptFormatter(add_special_tokens=False).bind(tokenizer)
    together = tokenizer(default.text(record), add_special_tokens=False)["input_ids"]
    assert default.encode(record, tokenizer).input_ids == together


@given(record=records)
def test_a_tokenizer_that_adds_nothing_gives_the_same_tokens_either_way(record: Record) -> None:
    without = PromptFormatter(add_special_tokens=False)
    assert without.encode(record, TOKENIZERS["tiny"]) == PromptFormatter().encode(record, TOKENIZERS["tiny"])
