"""Parsing the three shapes of answers."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sqlquarry.answers import Generation
from sqlquarry.errors import GenerationError
from sqlquarry.models.imported.answers import AnswerChunk, parse_answer, parse_chunk

USAGE = {"prompt_tokens": 11, "completion_tokens": 4, "total_tokens": 15}
SHAPES = {
    "BedrockCompletion": {
        "generation": " SELECT 1",
        "prompt_token_count": 11,
        "generation_token_count": 4,
        "stop_reason": "stop",
        "logprobs": None,
    },
    "OpenAICompletion": {
        "id": "cmpl-1",
        "object": "text_completion",
        "choices": [{"index": 0, "text": " SELECT 1", "finish_reason": "stop"}],
        "usage": USAGE,
    },
    "OpenAIChatCompletion": {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": " SELECT 1"}, "finish_reason": "stop"}],
        "usage": USAGE,
    },
}


def encode(content: Any) -> bytes:
    return json.dumps(content).encode()


@pytest.mark.parametrize("shape", SHAPES)
def test_all_three_shapes_give_the_same_answer(shape: str) -> None:
    assert parse_answer(encode(SHAPES[shape]), 0.5) == Generation(" SELECT 1", "stop", 11, 4, 0.5)


@pytest.mark.parametrize(
    ("word", "expected"),
    [
        ("stop", "stop"),
        ("end_turn", "stop"),
        ("length", "length"),
        ("max_tokens", "length"),
        ("odd", "odd"),
        (None, "stop"),
    ],
)
def test_stop_reasons_are_normalized(word: str | None, expected: str) -> None:
    assert parse_answer(encode({"generation": "", "stop_reason": word})).stop_reason == expected
    choice = {"text": "", "finish_reason": word}
    assert parse_answer(encode({"choices": [choice]})).stop_reason == expected


def test_an_empty_answer_is_an_answer() -> None:
    assert parse_answer(encode({"choices": [{"text": ""}]})) == Generation("", "stop", None, None, None)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"<html>", r"\(6 bytes\)"),
        (b"[]", r"\blist\b"),
        (encode({"outputs": [{"text": "secret"}], "x": 1}), r"\['outputs', 'x'\]"),
        (encode({"choices": []}), r"\['choices'\]"),
        (encode({"choices": [{"message": {"content": None}}]}), r"\['choices'\]"),
        (encode({"generation": None}), r"\['generation'\]"),
    ],
)
def test_anything_else_is_an_error_without_the_content(body: bytes, message: str) -> None:
    with pytest.raises(GenerationError, match=message) as caught:
        parse_answer(body)
    assert "<html>" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("chunk", "expected"),
    [
        ({"generation": "a", "stop_reason": None}, AnswerChunk("a")),
        ({"generation": "", "stop_reason": "length", "generation_token_count": 4}, AnswerChunk("", "length", None, 4)),
        ({"choices": [{"text": "a", "finish_reason": None}]}, AnswerChunk("a")),
        ({"choices": [{"delta": {"content": "a"}}]}, AnswerChunk("a")),
        ({"choices": [{"delta": {"role": "assistant"}}]}, AnswerChunk()),
        ({"choices": [{"delta": {}, "finish_reason": "stop"}]}, AnswerChunk(None, "stop")),
        ({"choices": [], "usage": USAGE}, AnswerChunk(None, None, 11, 4)),
    ],
)
def test_chunks(chunk: dict[str, Any], expected: AnswerChunk) -> None:
    assert parse_chunk(encode(chunk)) == expected


@pytest.mark.parametrize(
    "content",
    [
        {"choices": [{"text": "x", "logprobs": {"token_logprobs": [-0.5, -1], "tokens": ["a", "b"]}}]},
        {"choices": [{"message": {"content": "x"}, "logprobs": {"content": [{"logprob": -0.5}, {"logprob": -1}]}}]},
        {"generation": "x", "logprobs": [{"791": -0.5}, {"9": -2.0, "13": -1.0}]},
        {"generation": "x", "logprobs": [-0.5, -1.0]},
    ],
)
def test_logprobs_of_every_shape(content: dict[str, Any]) -> None:
    assert parse_answer(encode(content)).logprobs == (-0.5, -1.0)


@pytest.mark.parametrize("logprobs", [None, [], {}, {"content": None}, [None, -1.0], "x", [{}]])
def test_missing_or_unknown_logprobs_are_none(logprobs: Any) -> None:
    assert parse_answer(encode({"generation": "x", "logprobs": logprobs})).logprobs is None


def test_an_unknown_chunk_is_an_error() -> None:
    with pytest.raises(GenerationError, match=r"\['bytes'\]"):
        parse_chunk(encode({"bytes": "x"}))
