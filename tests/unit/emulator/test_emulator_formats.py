"""The three request and response shapes, without a server."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.artifacts import Generation
from sqlquarry.emulator.api import ApiError
from sqlquarry.emulator.engine import Decoding
from sqlquarry.emulator.formats import BedrockCompletion, OpenAIChatCompletion, OpenAICompletion, parse, without_text

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


@pytest.mark.parametrize(
    ("body", "shape", "decoding"),
    [
        ({"prompt": "p", "max_gen_len": 5, "temperature": 0}, BedrockCompletion, Decoding(5, 0.0)),
        ({"prompt": "p", "max_tokens": 5}, OpenAICompletion, Decoding(5, 1.0)),
        ({"prompt": "p", "max_gen_len": 5, "max_tokens": 6}, BedrockCompletion, Decoding(5, 1.0)),
        ({"prompt": "p", "max_tokens": 5, "stop": ";", "seed": 3}, OpenAICompletion, Decoding(5, 1.0, (";",), 3)),
        ({"prompt": "p", "max_tokens": 5, "temperature": 0, "top_p": 0.9}, OpenAICompletion, Decoding(5, 0.0)),
        ({"prompt": "p", "max_tokens": 5, "unknown": 1}, OpenAICompletion, Decoding(5, 1.0)),
        ({"prompt": "p", "max_tokens": 5, "logprobs": 1}, OpenAICompletion, Decoding(5, logprobs=True)),
        ({"prompt": "p", "max_tokens": 5, "logprobs": 0}, OpenAICompletion, Decoding(5, logprobs=True)),
        ({"prompt": "p", "max_gen_len": 5, "logprobs": 1}, BedrockCompletion, Decoding(5)),
        ({"prompt": "p", "max_gen_len": 5, "return_logprobs": True}, BedrockCompletion, Decoding(5, logprobs=True)),
        ({"messages": [{"role": "user", "content": "p"}]}, OpenAIChatCompletion, Decoding(None, 1.0)),
        ({"messages": [{"role": "user", "content": "p"}], "max_tokens": 2}, OpenAIChatCompletion, Decoding(2, 1.0)),
    ],
)
def test_the_keys_of_a_request_choose_its_shape(body, shape, decoding):
    found, prompt, how = parse(json.dumps(body))
    assert type(found) is shape
    assert prompt == body.get("messages", "p")
    assert how == decoding


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


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parse(json.dumps({"messages": [{"role": "user", "content": parts}]}))[1][0]["content"] == "a\nb"


OK = {"prompt": "p", "max_tokens": 5}


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("", "not valid JSON"),
        ("[]", "JSON object"),
        ({}, "prompt .* or messages"),
        ({"prompt": ["p"], "max_tokens": 1}, "prompt .* or messages"),
        ({"prompt": "p"}, "send max_tokens or max_gen_len"),
        ({"messages": []}, "at least one message"),
        ({"messages": ["hi"]}, "role and content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "must be text"),
        (OK | {"max_tokens": 0}, "max_tokens is 0"),
        (OK | {"max_tokens": True}, "max_tokens is True"),
        (OK | {"temperature": -1}, "temperature is -1"),
        (OK | {"temperature": "hot"}, "temperature is 'hot'"),
        (OK | {"seed": 1.5}, "seed is 1.5"),
        (OK | {"stop": [""]}, "stop is"),
        (OK | {"structured_outputs": {"json": {}}}, "does not do structured_outputs"),
        (OK | {"logprobs": 5, "n": 2}, "does not do more candidates than one .*, n"),
        (OK | {"logprobs": True, "top_logprobs": 3}, "more candidates than one"),
        (OK | {"top_p": 0.9}, "does not do top_p"),
    ],
)
def test_a_bad_body_is_refused_with_its_reason(body, message):
    with pytest.raises(ApiError, match=message) as caught:
        parse(body if isinstance(body, str) else json.dumps(body))
    assert caught.value.code == "ValidationException"
