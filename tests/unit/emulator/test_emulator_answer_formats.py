"""The three shapes of answers, without a server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.answers import Generation
from sqlquarry.emulator.bedrock.answer_formats import (
    BedrockCompletion,
    OpenAIChatCompletion,
    OpenAICompletion,
    without_text,
)

SHAPES = [BedrockCompletion, OpenAICompletion, OpenAIChatCompletion]


def read(shape, answer, *, piece=False):
    """Text and stop reason of a whole answer or of a chunk."""
    if shape is BedrockCompletion:
        return answer["generation"], answer["stop_reason"]
    (choice,) = answer["choices"]
    key = "text" if shape is OpenAICompletion else "delta" if piece else "message"
    text = choice[key] if shape is OpenAICompletion else choice[key]["content"]
    return text, choice["finish_reason"]


@pytest.mark.parametrize("shape", SHAPES)
@given(text=st.text(), reason=st.sampled_from(["stop", "length"]))
def test_pieces_make_the_whole_answer(shape, text, reason):
    generation = Generation(text, reason, 3, 5)
    pieces = [read(shape, piece, piece=True) for piece in shape().pieces(generation, "arn")]
    assert "".join(piece for piece, _ in pieces) == text
    assert read(shape, shape().answer(generation, "arn")) == (text, reason)
    assert [r for _, r in pieces] == [None] * (len(pieces) - 1) + [reason]


@pytest.mark.parametrize("shape", [OpenAICompletion, OpenAIChatCompletion])
def test_usage_adds_up(shape):
    generation = Generation("SELECT 1", "stop", 3, 5)
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert shape().answer(generation, "arn")["usage"] == usage
    *others, last = shape().pieces(generation, "arn")
    assert last["usage"] == usage
    assert all("usage" not in piece for piece in others)


def test_each_shape_has_its_own_place_for_logprobs():
    generation = Generation("ab", "stop", 1, 2, logprobs=(-0.5, -1.0))
    bedrock, completion, chat = (shape().answer(generation, "arn") for shape in SHAPES)
    assert bedrock["logprobs"] == [{"?": -0.5}, {"?": -1.0}]
    assert completion["choices"][0]["logprobs"] == {"token_logprobs": [-0.5, -1.0]}
    assert chat["choices"][0]["logprobs"] == {"content": [{"logprob": -0.5}, {"logprob": -1.0}]}
    assert "logprobs" not in OpenAICompletion().answer(Generation("a"), "arn")["choices"][0]


@pytest.mark.parametrize("shape", SHAPES)
def test_an_answer_can_say_nothing(shape):
    answer = without_text(shape().answer(Generation("text"), "arn"))
    assert "text" not in json.dumps(answer).replace("text_completion", "")
    assert answer.get("choices", []) == []


def test_an_echo_stands_before_the_answer():
    generation = Generation("SELECT 1", "stop", 3, 5)
    shape = OpenAICompletion("how? ")
    assert read(OpenAICompletion, shape.answer(generation, "arn")) == ("how? SELECT 1", "stop")
    said = "".join(piece["choices"][0]["text"] for piece in shape.pieces(generation, "arn"))
    assert said == "how? SELECT 1"
