"""The three answer formats, without a server."""

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

FORMATS = [BedrockCompletion, OpenAICompletion, OpenAIChatCompletion]


def read(answer_format, answer, *, piece=False):
    """Return the text and the stop reason of a complete answer or of a chunk."""
    if answer_format is BedrockCompletion:
        return answer["generation"], answer["stop_reason"]
    (choice,) = answer["choices"]
    key = "text" if answer_format is OpenAICompletion else "delta" if piece else "message"
    text = choice[key] if answer_format is OpenAICompletion else choice[key]["content"]
    return text, choice["finish_reason"]


@pytest.mark.parametrize("answer_format", FORMATS)
@given(text=st.text(), reason=st.sampled_from(["stop", "length"]))
def test_pieces_add_up_to_the_complete_answer(answer_format, text, reason):
    generation = Generation(text, reason, 3, 5)
    pieces = [read(answer_format, piece, piece=True) for piece in answer_format().pieces(generation, "arn")]
    assert "".join(piece for piece, _ in pieces) == text
    assert read(answer_format, answer_format().answer(generation, "arn")) == (text, reason)
    assert [r for _, r in pieces] == [None] * (len(pieces) - 1) + [reason]


@pytest.mark.parametrize("answer_format", [OpenAICompletion, OpenAIChatCompletion])
def test_usage_adds_up(answer_format):
    generation = Generation("SELECT 1", "stop", 3, 5)
    usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
    assert answer_format().answer(generation, "arn")["usage"] == usage
    *others, last = answer_format().pieces(generation, "arn")
    assert last["usage"] == usage
    assert all("usage" not in piece for piece in others)


def test_each_format_has_its_own_key_for_logprobs():
    generation = Generation("ab", "stop", 1, 2, logprobs=(-0.5, -1.0))
    bedrock, completion, chat = (answer_format().answer(generation, "arn") for answer_format in FORMATS)
    assert bedrock["logprobs"] == [{"?": -0.5}, {"?": -1.0}]
    assert completion["choices"][0]["logprobs"] == {"token_logprobs": [-0.5, -1.0]}
    assert chat["choices"][0]["logprobs"] == {"content": [{"logprob": -0.5}, {"logprob": -1.0}]}
    assert "logprobs" not in OpenAICompletion().answer(Generation("a"), "arn")["choices"][0]


@pytest.mark.parametrize("answer_format", FORMATS)
def test_an_answer_can_have_no_text(answer_format):
    answer = without_text(answer_format().answer(Generation("text"), "arn"))
    assert "text" not in json.dumps(answer).replace("text_completion", "")
    assert answer.get("choices", []) == []


def test_an_echo_precedes_the_answer():
    generation = Generation("SELECT 1", "stop", 3, 5)
    answer_format = OpenAICompletion("how? ")
    assert read(OpenAICompletion, answer_format.answer(generation, "arn")) == ("how? SELECT 1", "stop")
    text = "".join(piece["choices"][0]["text"] for piece in answer_format.pieces(generation, "arn"))
    assert text == "how? SELECT 1"
