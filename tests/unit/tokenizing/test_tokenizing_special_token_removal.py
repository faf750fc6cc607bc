"""Tokenizer files that were changed to add no special tokens, read by `tokenizers` as transformers 5 and 4.51.3 do."""

from __future__ import annotations

import copy
import dataclasses
import json
from functools import cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer_shapes as shapes
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import served_reading, trained_reading
from sqlquarry.tokenizing.special_token_removal import (
    adds_special_tokens,
    files_without_special_tokens,
    without_special_tokens,
)
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

every_shape = pytest.mark.parametrize("name", shapes.SHAPES)
ADD_NONE = {"qwen 2.5", "qwen 3", "qwen, default names", "smollm", "prefix space", "neox"}


def read(content: shapes.Files) -> TokenizerFiles:
    raw = {key: value if isinstance(value, bytes) else json.dumps(value).encode() for key, value in content.items()}
    return TokenizerFiles.read(raw.get, raw)


def files_of(name: str) -> TokenizerFiles:
    return read(copy.deepcopy(shapes.SHAPES[name]))


@cache
def tokenizers(name: str) -> tuple[FileTokenizer, FileTokenizer]:
    before = files_of(name)
    after = files_without_special_tokens(before)
    return FileTokenizer(trained_reading(before), before.config), FileTokenizer(trained_reading(after), after.config)


@every_shape
def test_each_prompt_gets_the_ids_that_it_had_without_special_tokens(name: str):
    before, after = tokenizers(name)
    wanted = before(shapes.PROMPTS, add_special_tokens=False)

    assert after(shapes.PROMPTS, add_special_tokens=True) == wanted
    assert after(shapes.PROMPTS, add_special_tokens=False) == wanted
    assert (before(shapes.PROMPTS) == wanted) == (name in ADD_NONE)


@every_shape
def test_transformers_4_51_3_adds_no_tokens_either(name: str):
    files = files_without_special_tokens(files_of(name))
    assert not adds_special_tokens(files)
    try:
        served = FileTokenizer(served_reading(files), files.config)
    except UnsupportedModelError:  # these files are repaired by an export
        assert name == "mistral without model" or name.startswith(("add_prefix_space", "bos as"))
        return
    assert served(shapes.PROMPTS) == served(shapes.PROMPTS, add_special_tokens=False)


@every_shape
def test_only_what_adds_the_tokens_changes(name: str):
    before, after = files_of(name), files_without_special_tokens(files := files_of(name))
    assert files == before  # the argument is not changed
    assert adds_special_tokens(before) == (name not in ADD_NONE)
    if name in ADD_NONE:
        assert after is files
        return
    assert {**after.tokenizer, "post_processor": None} == {**before.tokenizer, "post_processor": None}
    changed = {key for key, value in before.config.items() if after.config[key] != value}
    new = after.config.keys() - before.config.keys()
    if name == "code llama":  # in transformers 5 its class adds BOS whatever the files contain
        assert changed == {"tokenizer_class"}
        assert after.config["tokenizer_class"] == "LlamaTokenizer"
    else:
        assert changed | new <= {"add_bos_token", "add_eos_token"}
    assert files_without_special_tokens(after) is after


def test_options_that_contradict_the_changed_file_are_switched_off():
    files = files_of("llama 3")
    files = dataclasses.replace(files, config=files.config | {"add_bos_token": True})
    assert files_without_special_tokens(files).config == files.config | {"add_bos_token": False}


def test_bos_that_only_4_51_3_adds_is_switched_off():
    files = files_of("legacy absent")
    files = dataclasses.replace(files, tokenizer=files.tokenizer | {"post_processor": None})
    assert FileTokenizer(trained_reading(files), files.config)("a") != FileTokenizer(served_reading(files), {})("a")
    after = files_without_special_tokens(files)
    assert (adds_special_tokens(files), adds_special_tokens(after)) == (True, False)
    assert after.tokenizer == files.tokenizer


@pytest.mark.parametrize("name", ["tinyllama", "legacy", "stripping tokens", "llama 3", "code llama", "eos"])
@settings(max_examples=40)
@given(
    parts=st.lists(
        st.one_of(
            st.text(max_size=12),
            st.text(st.sampled_from(" \n\t▁aZ0é漢😀[]<>/|"), max_size=12),
            st.sampled_from(["</s>", "<s>", "<|im_end|>", "<|begin_of_text|>", "<unk>", "<|eot_id|>", " ", "\n"]),
        ),
        max_size=8,
    )
)
def test_any_text_gets_the_ids_that_it_had_without_special_tokens(name: str, parts: list[str]):
    before, after = tokenizers(name)
    text = "".join(parts)
    assert after(text) == before(text, add_special_tokens=False)


START, END = "<|begin_of_text|>", "<|eot_id|>"
BOTH = shapes.template(START, shapes.BL)
BOTH |= {"single": [*BOTH["single"], {"SpecialToken": {"id": END, "type_id": 0}}]}
BOTH |= {"special_tokens": BOTH["special_tokens"] | {END: {"id": END, "ids": [shapes.BL + 3], "tokens": [END]}}}
ENDS = {"sep": [END, shapes.BL + 3], "cls": [START, shapes.BL]}
PROCESSORS: dict[str, Any] = {
    "template": shapes.template(START, shapes.BL),
    "BOS and EOS": BOTH,
    "BERT": {"type": "BertProcessing", **ENDS},
    "RoBERTa": {"type": "RobertaProcessing", **ENDS, "trim_offsets": True, "add_prefix_space": False},
}
PROCESSORS["sequence"] = {"type": "Sequence", "processors": [shapes.bytes_(), BOTH]}
PROCESSORS["nested"] = {"type": "Sequence", "processors": [PROCESSORS["sequence"], PROCESSORS["BERT"]]}
PROCESSORS["only BERT in it"] = {"type": "Sequence", "processors": [PROCESSORS["BERT"]]}


@pytest.mark.parametrize("kind", PROCESSORS)
def test_no_kind_of_post_processor_adds_tokens_to_a_text_or_a_pair(kind: str):
    reading = {**shapes.SHAPES["llama 3"]["tokenizer.json"], "post_processor": PROCESSORS[kind]}
    before, after = (FileTokenizer(one, {}).backend for one in (reading, without_special_tokens(reading)))

    for text in [("SELECT a FROM é",), ("How many", " users?\n")]:
        wanted = before.encode(*text, add_special_tokens=False)
        assert before.encode(*text).ids != wanted.ids
        assert after.encode(*text).ids == wanted.ids
        assert after.encode(*text).tokens == wanted.tokens


@pytest.mark.parametrize("processor", [None, shapes.bytes_()])
def test_a_post_processor_that_adds_nothing_is_kept(processor: Any):
    reading = {**shapes.SHAPES["llama 3"]["tokenizer.json"], "post_processor": processor}
    assert without_special_tokens(reading) == reading


def test_a_tokenizer_that_cannot_be_changed_is_refused():
    files = files_of("llama 2")
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.json"):
        files_without_special_tokens(dataclasses.replace(files, tokenizer={}))
    # transformers 5 rebuilds this class with other pre-tokenization than the file's.
    content = copy.deepcopy(shapes.SHAPES["ByteLevel as Llama"])
    content["tokenizer_config.json"]["tokenizer_class"] = "CodeLlamaTokenizer"
    with pytest.raises(UnsupportedModelError, match="CodeLlamaTokenizer"):
        files_without_special_tokens(read(content))
