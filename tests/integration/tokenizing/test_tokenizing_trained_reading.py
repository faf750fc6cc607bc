"""Test that the trained reading of a tokenizer equals the one of the installed transformers 5."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tokenizer_shapes as shapes
from sqlquarry.bedrock.export.tokenizer_repair import repaired, wanted_reading
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.reading_equality import same_tokens
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

LOADABLE = [name for name in shapes.SHAPES if name != "bos as plain object"]  # version 5 cannot load that one either


@pytest.fixture(params=[False, True], ids=["original", "exported"])
def directory(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    def written(name: str) -> Path:
        directory = shapes.write(shapes.SHAPES[name], tmp_path / "model")
        if request.param:
            files = TokenizerFiles.in_directory(directory)
            after = repaired(files, wanted_reading(files, by_5=True), by_5=True)
            contents = {"tokenizer.json": after.tokenizer, "tokenizer_config.json": after.config}
            shapes.write(contents, directory)
        return directory

    return written


@pytest.mark.parametrize("name", LOADABLE)
def test_the_trained_reading_equals_that_of_transformers_5(directory: Any, name: str) -> None:
    from transformers import AutoTokenizer

    place = directory(name)
    theirs, files = AutoTokenizer.from_pretrained(place), TokenizerFiles.in_directory(place)
    reading = trained_reading(files)

    assert same_tokens(json.loads(theirs.backend_tokenizer.to_str()), reading)
    ours = FileTokenizer(reading, files.config)
    for adds in (True, False):
        for prompt in shapes.PROMPTS:
            expected = theirs(prompt, add_special_tokens=adds)["input_ids"]
            assert ours(prompt, add_special_tokens=adds)["input_ids"] == expected, prompt


@cache
def pair(name: str, place: Path) -> tuple[Any, Any]:
    from transformers import AutoTokenizer

    directory = shapes.write(shapes.SHAPES[name], place / name.replace(" ", "-"))
    files = TokenizerFiles.in_directory(directory)
    return AutoTokenizer.from_pretrained(directory), FileTokenizer(trained_reading(files), files.config)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tokenizers")


@settings(max_examples=80)
@given(
    name=st.sampled_from(["tinyllama", "legacy", "chatml", "qwen 3", "llama 3", "smollm", "distilled qwen"]),
    text=st.one_of(st.text(), st.lists(st.sampled_from(["</s>", "<|im_end|>", " ", "\n", "a b", "é"])).map("".join)),
)
def test_any_text_gets_the_ids_of_transformers_5(place: Path, name: str, text: str) -> None:
    theirs, ours = pair(name, place)
    assert ours(text)["input_ids"] == theirs(text)["input_ids"]
