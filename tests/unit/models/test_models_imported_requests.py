"""The three request schemas: request bodies for each option, and options that are refused before any request."""

from __future__ import annotations

import json
from typing import Any

import pytest

from bedrock_fakes import FORMATTER
from bedrock_runtime_fakes import ARN, RECORD, FakeSession, imported
from sqlquarry.errors import ConfigError
from sqlquarry.models import ImportedModel
from sqlquarry.models.imported.requests import RequestFormat
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

GOLD = Record("How many?", "CREATE TABLE t (a)", sql="SELECT COUNT(*) FROM t")
MESSAGES = FORMATTER.messages(RECORD)


def sent(item: Any, schema: Any, **options: Any) -> dict[str, Any]:
    body: dict[str, Any] = json.loads(RequestFormat(FORMATTER, schema, 7, **options).body(item))
    return body


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ("max_tokens", {"prompt": FORMATTER.prompt(RECORD), "max_tokens": 7, "temperature": 0}),
        ("max_gen_len", {"prompt": FORMATTER.prompt(RECORD), "max_gen_len": 7, "temperature": 0}),
        ("messages", {"messages": MESSAGES, "max_tokens": 7, "temperature": 0}),
    ],
)
def test_a_record_in_each_schema_without_its_gold(schema: str, expected: dict[str, Any]) -> None:
    assert sent(RECORD, schema) == expected
    assert sent(GOLD, schema) == expected
    assert [message["role"] for message in MESSAGES] == ["system", "user"]


def test_a_text_is_the_prompt_or_one_user_message() -> None:
    assert sent("hi", "max_tokens")["prompt"] == "hi"
    assert sent("hi", "max_gen_len")["prompt"] == "hi"
    assert sent("hi", "messages")["messages"] == [{"role": "user", "content": "hi"}]


@pytest.mark.parametrize(
    ("schema", "logprobs"),
    [
        ("max_tokens", {"logprobs": 1}),
        ("messages", {"logprobs": True, "top_logprobs": 1}),
        ("max_gen_len", {"return_logprobs": True}),
    ],
)
def test_stop_and_logprobs(schema: str, logprobs: dict[str, Any]) -> None:
    plain, asked = sent("x", schema), sent("x", schema, stop=[";", "\n\n"], logprobs=True)
    assert asked == plain | {"stop": [";", "\n\n"]} | logprobs


JSON_SCHEMA = {"type": "object", "properties": {"sql": {"type": "string"}}}


@pytest.mark.parametrize("schema", ["max_tokens", "messages"])
@pytest.mark.parametrize(
    "structured",
    [{"json": JSON_SCHEMA}, {"regex": "SELECT .*"}, {"choice": ["yes", "no"]}, {"grammar": 'root ::= "a"'}],
)
def test_constraints(schema: str, structured: dict[str, Any]) -> None:
    assert sent("x", schema, structured=structured)["structured_outputs"] == structured
    assert list(RequestFormat(FORMATTER, schema, structured=structured).problems()) == []


def test_a_json_schema_in_bedrocks_own_schema() -> None:
    assert list(RequestFormat(FORMATTER, "max_gen_len", structured={"json": JSON_SCHEMA}).problems()) == []
    assert sent("x", "max_gen_len", structured={"json": JSON_SCHEMA})["response_format"] == {
        "type": "json_schema",
        "json_schema": JSON_SCHEMA,
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"structured": {"regex": "a"}, "request_schema": "max_gen_len"}, "'regex'.*request_schema='max_gen_len'"),
        ({"structured": {"json": JSON_SCHEMA, "regex": "a"}}, r"structured\b.*'object'.*json, regex, choice, grammar"),
        ({"structured": {}}, r"structured\b.*\{\}.*json, regex, choice, grammar"),
        ({"structured": "json"}, r"structured\b.*\bstr\b"),
        ({"structured": {"json": "{}"}}, r"structured\['json'\].*'\{\}'.*Mapping"),
        ({"structured": {"json": {"a": object()}}}, r"structured\['json'\].*<object"),
        ({"structured": {"choice": []}}, r"structured\['choice'\].*\[\].*\blist\b"),
        ({"structured": {"choice": [1]}}, r"structured\['choice'\].*\[1\].*\blist\b"),
        ({"structured": {"regex": ""}}, r"structured\['regex'\].*''.*\bstr\b"),
        ({"stop": ";"}, r"stop\b.*';'"),
        ({"stop": [""]}, r"stop\b.*\[''\]"),
    ],
)
def test_unsupported_options_are_refused_before_any_request(options: dict[str, Any], message: str) -> None:
    session = FakeSession()
    with pytest.raises(ConfigError, match=message):
        imported(session, **options)
    assert session.asked_for == []


def test_without_a_formatter_texts_are_answered_and_records_refused() -> None:
    session = FakeSession()
    model = imported(session, formatter=None)
    assert model.generate(["a"])[0].text == "A"
    with pytest.raises(ConfigError, match="formatter="):
        model.generate([RECORD])
    assert len(session.bodies) == 1


def test_the_schema_messages_works_with_an_unbound_formatter() -> None:
    formatter = PromptFormatter()
    assert (
        ImportedModel(ARN, formatter=formatter, session=FakeSession(), request_schema="messages").formatter is formatter
    )
    with pytest.raises(ConfigError, match=r"formatter\b"):
        ImportedModel(ARN, formatter=formatter, session=FakeSession())
