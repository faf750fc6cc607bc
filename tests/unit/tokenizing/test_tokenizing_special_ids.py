"""Test which ids of special tokens a model gets with another tokenizer."""

from __future__ import annotations

from typing import Any

import pytest

from sqlquarry.tokenizing.special_ids import id_changes, token_ids
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles, is_tokenizer_file


def files(*tokens: str, **config: str) -> TokenizerFiles:
    """Return a tokenizer whose tokens have the ids 0, 1, …"""
    vocabulary = {token: id_ for id_, token in enumerate(tokens)}
    return TokenizerFiles({"model": {"type": "BPE", "vocab": vocabulary, "merges": []}}, config)


BASE = files("<s>", "</s>", "a", "<pad>", bos_token="<s>", eos_token="</s>")
OWN = files("<s>", "</s>", "a", "b", "<end>", bos_token="<s>", eos_token="<end>", pad_token="b")


@pytest.mark.parametrize(
    ("config", "rows", "own", "expected"),
    [
        ({"bos_token_id": 0, "eos_token_id": 1}, 9, OWN, {"eos_token_id": [4, 1], "pad_token_id": 3}),
        ({"bos_token_id": 0, "eos_token_id": [1, 2]}, 9, OWN, {"eos_token_id": [4, 1, 2], "pad_token_id": 3}),
        ({"bos_token_id": 0, "eos_token_id": 4, "pad_token_id": 3}, 9, OWN, {}),
        ({"bos_token_id": 0, "eos_token_id": [4, 1], "pad_token_id": 3}, 9, OWN, {}),
        ({"bos_token_id": 0, "eos_token_id": 3}, 9, OWN, {"eos_token_id": 4, "pad_token_id": 3}),
        ({"bos_token_id": None, "eos_token_id": None}, 9, OWN,
         {"bos_token_id": 0, "eos_token_id": 4, "pad_token_id": 3}),
        ({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}, 9, files("<s>", "</s>"), {"pad_token_id": None}),
        ({"bos_token_id": 0, "eos_token_id": [1, 3], "pad_token_id": 3}, 3, None,
         {"eos_token_id": [1], "pad_token_id": None}),
        ({"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 3}, 9, None, {}),
        ({}, 9, None, {}),
    ],
)  # fmt: skip
def test_ids_follow_the_tokenizer(
    config: dict[str, Any], rows: int, own: TokenizerFiles | None, expected: dict[str, Any]
) -> None:
    assert id_changes(config, rows, BASE, own) == expected


def test_ids_of_a_unigram_vocabulary_are_places() -> None:
    reading = {"model": {"vocab": [["a", -1.0], ["b", -2.0]]}, "added_tokens": [{"content": "c", "id": 7}]}
    assert token_ids(reading) == {"a": 0, "b": 1, "c": 7}


@pytest.mark.parametrize("name", ["tokenizer.json", "tokenizer.model", "chat_template.jinja", "vocab.json"])
def test_files_of_a_tokenizer_are_known(name: str) -> None:
    assert is_tokenizer_file(name)
    assert not is_tokenizer_file(f"other-{name}")
    assert not is_tokenizer_file("config.json")
