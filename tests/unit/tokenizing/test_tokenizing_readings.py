"""Compare predicted and repaired tokenizers with the output of transformers 4.51.3.

Its output was recorded by tests/tools/served_tokens.py.
"""

from __future__ import annotations

import copy
import dataclasses
import json
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer_shapes as shapes
from sqlquarry.bedrock.export.tokenizer_repair import repaired, saved_by_5, wanted_reading
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.reading_equality import same_tokens
from sqlquarry.tokenizing.readings import served_reading, trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

RECORDED = json.loads(shapes.RECORDED.read_text())
every_shape = pytest.mark.parametrize("name", shapes.SHAPES)


def recorded(key):
    """Return 4.51.3's ids of each prompt, with and without special tokens around it, or None if it failed."""
    answer = RECORDED["answers"][key]
    if isinstance(answer, str):
        return None
    return [(front + RECORDED["ids"][place] + behind, RECORDED["ids"][place]) for front, place, behind in answer]


def ids(files, reading, prompts=shapes.PROMPTS):
    tokenizer = FileTokenizer(reading, files.config)
    with_, without = (tokenizer(list(prompts), add_special_tokens=adds)["input_ids"] for adds in (True, False))
    return list(zip(with_, without, strict=True))


def files_of(name):
    content = copy.deepcopy(shapes.SHAPES[name])
    raw = {key: value if isinstance(value, bytes) else json.dumps(value).encode() for key, value in content.items()}
    return TokenizerFiles.read(raw.get, raw)


def exported(files):
    return repaired(files, wanted_reading(files, by_5=True), by_5=True)


@cache
def tokenizers(name):
    files = files_of(name)
    after = exported(files)
    return FileTokenizer(trained_reading(files), files.config), FileTokenizer(served_reading(after), after.config)


@every_shape
def test_the_prediction_is_what_4_51_3_makes_of_the_original_files(name: str):
    files, answer = files_of(name), recorded(f"{name}|before")
    if answer is None:
        with pytest.raises(UnsupportedModelError):
            served_reading(files)
    else:
        assert ids(files, served_reading(files)) == answer


@every_shape
def test_4_51_3_makes_the_trained_ids_of_the_exported_files(name: str):
    before, after = files_of(name), exported(files_of(name))
    trained = ids(before, trained_reading(before))

    assert recorded(f"{name}|after") == trained
    assert ids(after, served_reading(after)) == trained
    assert ids(after, trained_reading(after)) == trained  # local answers equal those of the server


def test_the_fault_was_there():
    """Count for each shape the prompts that 4.51.3 reads differently than training. None means that it fails."""
    differing = {}
    for name in shapes.SHAPES:
        files, before = files_of(name), recorded(f"{name}|before")
        trained = ids(files, trained_reading(files))
        differing[name] = None if before is None else sum(a != b for a, b in zip(before, trained, strict=True))

    same = {name for name, count in differing.items() if count == 0}
    refused = {name for name, count in differing.items() if count is None}
    assert {name: differing[name] for name in ("llama 2", "tinyllama", "vicuna", "legacy", "chatml", "eos")} == {
        "llama 2": 11, "tinyllama": 11, "vicuna": 11, "legacy": 7, "chatml": 13, "eos": len(shapes.PROMPTS)
    }  # fmt: skip
    assert {"llama 3", "qwen 2.5", "qwen 3", "mistral 0.1", "mistral 0.3", "metaspace llama"} <= same
    assert refused == {
        "mistral without model",
        *(f"add_prefix_space {value}, legacy {legacy}" for value in (True, False) for legacy in (True, False)),
        "bos null",
        "bos as plain object",
    }


def test_an_export_is_stable():
    for name in shapes.SHAPES:
        once = exported(files_of(name))
        assert exported(once) == once


@pytest.mark.parametrize("name", ["llama 3", "qwen 2.5", "qwen 3", "mistral 0.1", "metaspace llama"])
def test_a_tokenizer_that_both_read_alike_is_not_touched(name: str):
    files = files_of(name)
    assert exported(files) is files


@pytest.mark.parametrize(
    "name", ["tinyllama", "legacy", "stripping tokens", "smollm", "distilled qwen", "prefix space"]
)
@settings(max_examples=40)
@given(
    parts=st.lists(
        st.one_of(
            st.text(max_size=12),
            st.text(st.sampled_from(" \n\t▁aZ0é漢😀[]<>/|"), max_size=12),
            st.sampled_from(["</s>", "<s>", "<|im_end|>", "<|im_start|>", "<unk>", "<|eot_id|>", "[INST]", " ", "\n"]),
        ),
        max_size=8,
    )
)
def test_any_text_is_served_in_the_trained_ids(name: str, parts: list[str]):
    trained, served = tokenizers(name)
    text = "".join(parts)
    for adds in (True, False):
        assert served(text, add_special_tokens=adds) == trained(text, add_special_tokens=adds)


@pytest.mark.parametrize("name", ["tinyllama", "legacy", "chatml", "smollm", "distilled qwen"])
def test_an_older_checkpoint_keeps_the_ids_that_4_51_3_always_made(name: str):
    files = files_of(name)
    assert not saved_by_5(files)
    after = repaired(files, wanted_reading(files, by_5=False), by_5=False)
    assert ids(after, served_reading(after)) == recorded(f"{name}|before")


def test_an_older_checkpoint_that_4_51_3_cannot_load_gets_the_reading_of_transformers_5():
    files = files_of("add_prefix_space False, legacy True")
    after = repaired(files, wanted_reading(files, by_5=False), by_5=False)
    assert ids(after, served_reading(after)) == ids(files, trained_reading(files))


@pytest.mark.parametrize(
    ("config", "model", "expected"),
    [
        ({}, {"transformers_version": "4.57.1"}, False),
        ({}, {}, False),
        ({}, {"transformers_version": "5.24.0"}, True),
        ({}, {"transformers_version": "4.57.1", "dtype": "bfloat16"}, True),
        ({"backend": "tokenizers"}, {"transformers_version": "4.57.1"}, True),
        ({}, {"transformers_version": None}, False),
    ],
)
def test_the_version_that_saved_a_checkpoint_is_inferred_from_its_keys(config, model, expected):
    assert saved_by_5(TokenizerFiles({}, config, model)) is expected


def test_the_sentencepiece_model_must_be_the_one_of_the_class():
    files = files_of("add_prefix_space True, legacy True, model")
    served_reading(files)
    with pytest.raises(UnsupportedModelError, match=r"tokenizer\.model"):
        served_reading(dataclasses.replace(files, sentencepiece=False))


def test_bos_that_no_file_names_cannot_be_added():
    with pytest.raises(UnsupportedModelError, match=r"\badd_bos_token\b"):
        served_reading(files_of("bos null"))


@given(flag=st.sampled_from(["lstrip", "rstrip", "single_word", "normalized"]))
def test_readings_differ_by_the_flags_of_one_token(flag: str):
    reading = trained_reading(files_of("chatml"))
    tokens = copy.deepcopy(reading["added_tokens"])
    tokens[-1][flag] = not tokens[-1][flag]
    assert same_tokens(reading, {**reading, "added_tokens": reading["added_tokens"]})
    assert not same_tokens(reading, {**reading, "added_tokens": tokens})


def test_the_recorded_answers_belong_to_these_shapes_and_prompts():
    names = {f"{name}|{time}" for name in shapes.SHAPES for time in ("before", "after")}
    assert RECORDED["answers"].keys() == names
    assert {len(rows) for rows in RECORDED["answers"].values() if isinstance(rows, list)} == {len(shapes.PROMPTS)}
    assert not any(isinstance(answer, str) for key, answer in RECORDED["answers"].items() if key.endswith("after"))
    sizes = (path.stat().st_size for path in Path(shapes.HERE).iterdir() if path.is_file())
    assert sum(sizes) < 300_000
