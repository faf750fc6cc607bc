"""The allowed keys and values of a body. All other keys are refused by name."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.emulator.bedrock import allowed_keys
from sqlquarry.emulator.bedrock.answer_formats import BedrockCompletion, OpenAIChatCompletion, OpenAICompletion
from sqlquarry.emulator.bedrock.completion_request import Decoding
from sqlquarry.emulator.bedrock.invocation import parse_invocation
from sqlquarry.emulator.requests.errors import ApiError
from sqlquarry.models.local.constraints import AnswerForm
from sqlquarry.models.local.sampling import Sampling

SCHEMA = {"type": "object", "properties": {"a": {"enum": [1]}}}
USER = {"role": "user", "content": "p"}
BODIES = {
    BedrockCompletion: {"prompt": "p", "max_gen_len": 5},
    OpenAICompletion: {"prompt": "p", "max_tokens": 5},
    OpenAIChatCompletion: {"messages": [USER]},
}


def sampled(**options):
    return Sampling(**{"temperature": 1.0} | options)


def refused(body, *names):
    with pytest.raises(ApiError) as caught:
        parse_invocation(body if isinstance(body, str) else json.dumps(body))
    assert caught.value.code == "ValidationException"
    for name in names:
        assert name in caught.value.message


@pytest.mark.parametrize(
    ("body", "shape", "decoding"),
    [
        ({"prompt": "p", "max_gen_len": 5, "temperature": 0}, BedrockCompletion, Decoding(5, Sampling())),
        ({"prompt": "p"}, BedrockCompletion, Decoding(None)),  # an example of "Advanced API features"
        ({"prompt": "p", "max_tokens": 5}, OpenAICompletion, Decoding(5)),
        (
            {"prompt": "p", "max_tokens": 5, "stop": ";", "seed": 3},
            OpenAICompletion,
            Decoding(5, stop=(";",), seed=3),
        ),
        ({"prompt": "p", "max_tokens": 5, "top_p": 0.9}, OpenAICompletion, Decoding(5, sampled(top_p=0.9))),
        ({"prompt": "p", "max_tokens": 5, "logprobs": 1}, OpenAICompletion, Decoding(5, logprobs=True)),
        ({"prompt": "p", "max_tokens": 5, "logprobs": 0}, OpenAICompletion, Decoding(5, logprobs=True)),
        ({"prompt": "p", "max_gen_len": 5, "return_logprobs": True}, BedrockCompletion, Decoding(5, logprobs=True)),
        ({"messages": [USER]}, OpenAIChatCompletion, Decoding(None)),
        ({"messages": [USER], "max_tokens": 2, "logprobs": 0}, OpenAIChatCompletion, Decoding(2)),
        ({"messages": [USER], "max_completion_tokens": 3}, OpenAIChatCompletion, Decoding(3)),
    ],
)
def test_the_keys_of_a_request_select_its_format(body, shape, decoding):
    found, request = parse_invocation(json.dumps(body))
    assert type(found) is shape
    assert request.prompt == body.get("messages", "p")
    assert request.decoding == decoding


# Key -> invalid values. null is always valid and means that the key is not set.
WRONG = {
    "temperature": [-1, "hot", True, [], 1e400],
    "top_p": [0, 1.5, -0.1, "1", True],
    "top_k": [-2, 1.5, "3", True],
    "min_p": [-0.1, 1.1, "0", False],
    "repetition_penalty": [0, -1, "1", True],
    "presence_penalty": [-2.5, 2.5, "0", True],
    "frequency_penalty": [-2.5, 2.5, "0", True],
    "logit_bias": [[], {"a": 1}, {"1": "x"}, {"1": 101}, {"-1": 1}, {"1": True}, {"05": 1}, {"٥": 1}, {"9" * 5000: 1}],
    "seed": [1.5, "1", True, 2**63],
    "stop": ["", [""], [1], {}, 5],
    "stop_token_ids": [[-1], ["1"], 5, [True]],
    "ignore_eos": [1, "true"],
    "min_tokens": [-1, 1.5, True, 6],
    "skip_special_tokens": [0, "no"],
    "response_format": ["json", {"type": "xml"}, {"type": "json_schema"}, {"type": "json_object", "extra": 1}, {}],
    "max_gen_len": [0, -1, 1.5, "5", True],
    "return_logprobs": [1, "true"],
    "max_tokens": [0, -1, 1.5, "5", True],
    "max_completion_tokens": [0, -1, 1.5, "5", True],
    "logprobs": [2, "1", -1, []],
    "top_logprobs": [2, "1", 1],
    "echo": [1, "true"],
    "add_special_tokens": [1, "true"],
    "add_generation_prompt": [1, "true"],
    "chat_template_kwargs": [[], "a", 1],
    "structured_outputs": [
        [],
        {},
        {"json": SCHEMA, "regex": "a"},
        {"xml": 1},
        {"regex": "("},
        {"choice": []},
        {"json": {"type": "text"}},
        {"grammar": "?"},
    ],
}


def test_every_key_has_a_type():
    keys = allowed_keys.EVERY_FORMAT.keys() | {key for own in allowed_keys.OWN_KEYS.values() for key in own}
    assert keys == allowed_keys.InvocationOptions.__annotations__.keys()


@pytest.mark.parametrize("shape", BODIES)
def test_every_key_refuses_what_it_cannot_mean(shape):
    keys = allowed_keys.EVERY_FORMAT.keys() | allowed_keys.OWN_KEYS[shape].keys()
    assert keys <= WRONG.keys()
    for key in keys:
        for value in WRONG[key]:
            rest = {name: held for name, held in BODIES[shape].items() if not name.startswith("max")}
            refused({**rest, "max_gen_len" if shape is BedrockCompletion else "max_tokens": 5, key: value}, key)
        assert parse_invocation(json.dumps({**BODIES[shape], key: None}))


@pytest.mark.parametrize("shape", BODIES)
@given(key=st.text(min_size=1), value=st.one_of(st.none(), st.booleans(), st.integers(), st.text()))
def test_no_unknown_key_is_passed_over(shape, key, value):
    known = allowed_keys.EVERY_FORMAT.keys() | allowed_keys.OWN_KEYS[shape].keys() | BODIES[shape].keys()
    if key not in known | allowed_keys.WITHOUT_EFFECT.keys() | {"messages", "prompt"}:
        with pytest.raises(ApiError) as caught:
            parse_invocation(json.dumps({**BODIES[shape], key: value}))
        assert caught.value.code == "ValidationException"
        assert key in caught.value.message


# Other keys of vLLM and OpenAI, and old names of keys, with values that have an effect.
UNSUPPORTED = {
    "n": 2,
    "best_of": 2,
    "stream": True,
    "use_beam_search": True,
    "length_penalty": 0.5,
    "include_stop_str_in_output": True,
    "spaces_between_special_tokens": False,
    "continue_final_message": True,
    "tools": [{"type": "function"}],
    "tool_choice": "auto",
    "bad_words": ["a"],
    "allowed_token_ids": [1],
    "prompt_logprobs": 1,
    "truncate_prompt_tokens": 5,
    "suffix": "s",
    "user": "me",
    "model": "m",
    "chat_template": "{{ messages }}",
    "documents": [],
    "priority": 1,
    "guided_json": SCHEMA,
    "guided_regex": "a",
    "images": ["x"],
}


@pytest.mark.parametrize("shape", BODIES)
def test_unsupported_keys_are_refused_unless_they_have_no_effect(shape):
    for key, value in UNSUPPORTED.items():
        refused({**BODIES[shape], key: value}, key)
    assert allowed_keys.WITHOUT_EFFECT.keys() <= UNSUPPORTED.keys()
    assert parse_invocation(json.dumps({**BODIES[shape], **allowed_keys.WITHOUT_EFFECT}))
    refused({**BODIES[shape], "n": True}, "n")


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ("", ["the body"]),
        ("[]", ["the body"]),
        ({}, ["prompt", "messages"]),
        ({"prompt": ["p"], "max_tokens": 1}, ["prompt"]),
        ({"prompt": "p", "max_gen_len": 5, "max_tokens": 6}, ["max_tokens"]),
        ({"prompt": "p", "max_gen_len": 5, "logprobs": 1}, ["logprobs"]),
        ({"prompt": "p", "max_gen_len": 5, "structured_outputs": {"json": SCHEMA}}, ["structured_outputs"]),
        ({"prompt": "p", "max_tokens": 5, "top_logprobs": 1, "logprobs": 1}, ["top_logprobs"]),
        ({"prompt": "p", "max_tokens": 5, "echo": True, "logprobs": 1}, ["echo", "logprobs"]),
        ({"messages": [USER], "prompt": "p"}, ["prompt"]),
        ({"messages": [USER], "max_gen_len": 5}, ["max_gen_len"]),
        ({"messages": [USER], "max_tokens": 5, "max_completion_tokens": 5}, ["max_tokens", "max_completion_tokens"]),
        ({"messages": []}, ["messages"]),
        ({"messages": ["hi"]}, ["message", "'hi'"]),
        ({"messages": [{"role": "user"}]}, ["content"]),
        ({"messages": [USER | {"name": "me"}]}, ["name"]),
        ({"messages": [USER | {"made_up": None}]}, ["made_up"]),
        ({"messages": [{"role": "assistant", "content": "", "tool_calls": []}]}, ["tool_calls"]),
        ({"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]}, ["image_url"]),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "a", "made_up": 1}]}]}, ["made_up"]),
    ],
)
def test_an_invalid_body_is_refused_with_the_names_of_its_keys(body, names):
    refused(body, *names)


def test_null_means_that_a_key_is_not_set():
    without = {"prompt": "p", "max_tokens": 5}
    for null in ({"messages": None}, {"max_gen_len": None}):
        assert type(parse_invocation(json.dumps(without | null))[0]) is OpenAICompletion
    assert type(parse_invocation(json.dumps({"prompt": "p", "max_tokens": None}))[0]) is BedrockCompletion
    assert type(parse_invocation(json.dumps({"messages": [USER], "prompt": None}))[0]) is OpenAIChatCompletion
    nested = {"structured_outputs": {"regex": "a", "json": None}}, {"response_format": {"type": "text", "schema": None}}
    forms = [parse_invocation(json.dumps(without | body))[1].decoding.constraint for body in nested]
    assert forms == [AnswerForm.of("regex", "a"), None]


OPENAI_SCHEMA = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}}
BARE_SCHEMA = {"type": "json_schema", "json_schema": SCHEMA}


@pytest.mark.parametrize(
    ("shape", "key", "value", "form"),
    [
        *((shape, "response_format", {"type": "json_object"}, ("json", {"type": "object"})) for shape in BODIES),
        (BedrockCompletion, "response_format", BARE_SCHEMA, ("json", SCHEMA)),
        (OpenAICompletion, "response_format", OPENAI_SCHEMA, ("json", SCHEMA)),
        (OpenAIChatCompletion, "response_format", OPENAI_SCHEMA, ("json", SCHEMA)),
        *(
            (shape, "structured_outputs", {kind: value}, (kind, value))
            for shape in (OpenAICompletion, OpenAIChatCompletion)
            for kind, value in (("json", SCHEMA), ("regex", "a+"), ("choice", ["a"]), ("grammar", 'root ::= "a"'))
        ),
    ],
)
def test_constraints_of_each_format(shape, key, value, form):
    assert parse_invocation(json.dumps({**BODIES[shape], key: value}))[1].decoding.constraint == AnswerForm.of(*form)
    for other in ({"min_tokens": 1}, {"ignore_eos": True}):
        refused({**BODIES[shape], key: value, **other}, next(iter(other)))


def test_constraints_of_another_format_are_refused():
    refused(BODIES[BedrockCompletion] | {"response_format": OPENAI_SCHEMA}, "json_schema")
    refused(BODIES[OpenAICompletion] | {"response_format": BARE_SCHEMA}, "json_schema")
    extra = {"type": "json_schema", "json_schema": {"name": "a", "schema": SCHEMA, "made_up": 1}}
    refused(BODIES[OpenAICompletion] | {"response_format": extra}, "json_schema")
    both = {"response_format": {"type": "json_object"}, "structured_outputs": {"regex": "a"}}
    refused(BODIES[OpenAICompletion] | both, "response_format", "structured_outputs")
    assert parse_invocation(json.dumps(BODIES[OpenAICompletion] | {"response_format": {"type": "text"}}))[
        1
    ].decoding == Decoding(5)


def test_text_parts_are_joined():
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert parse_invocation(json.dumps({"messages": [{"role": "user", "content": parts}]}))[1].prompt == [
        {"role": "user", "content": "a\nb"}
    ]
