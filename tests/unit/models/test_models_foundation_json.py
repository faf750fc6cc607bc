"""FoundationModel.generate_json: structured output, and what happens if a model refuses parts of a request."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pytest

from bedrock_runtime_fakes import FakeSession, foundation, refusal
from bedrock_shapes import check_answer, check_request
from sqlquarry.answers import Generation
from sqlquarry.errors import BedrockError, ConfigError, GenerationError
from sqlquarry.models import FoundationModel

SCHEMA = {
    "type": "object",
    "properties": {"verdict": {"type": "integer", "enum": [0, 100]}},
    "required": ["verdict"],
    "additionalProperties": False,
}
ANSWER = '{"verdict": 100}'
UNSUPPORTED = refusal("ValidationException", "This model doesn't support the outputConfig.textFormat field.")
NO_TOOLS = refusal("ValidationException", "This model doesn't support tool use.")
NO_CACHE = refusal(
    "AccessDeniedException", "You invoked an unsupported model or your request did not allow prompt caching."
)


def reply(*content: dict[str, Any], **usage: int) -> dict[str, Any]:
    answer = {
        "output": {"message": {"role": "assistant", "content": list(content)}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 7, "outputTokens": 4, "totalTokens": 11} | usage,
        "metrics": {"latencyMs": 1},
    }
    check_answer("bedrock-runtime", "Converse", answer)
    return answer


class Service:
    """Converse of a model that lacks some features. It refuses them in the way that Bedrock does."""

    def __init__(self, *refused: str) -> None:
        self.refused = refused

    def __call__(self, request: dict[str, Any]) -> dict[str, Any]:
        check_request("bedrock-runtime", "Converse", request)
        if "outputConfig" in request:
            if "format" in self.refused:
                raise UNSUPPORTED
            return reply({"text": ANSWER})
        if "cache" in self.refused and {"cachePoint": {"type": "default"}} in request.get("system", []):
            raise NO_CACHE
        if "temperature" in self.refused and "temperature" in request["inferenceConfig"]:
            raise refusal("ValidationException", "`temperature` is deprecated for this model.")
        if "toolConfig" in request:
            if "tool" in self.refused:
                raise NO_TOOLS
            name = request["toolConfig"]["toolChoice"]["tool"]["name"]
            return reply({"toolUse": {"toolUseId": "t1", "name": name, "input": {"verdict": 100}}})
        tags = re.findall(r"<(answer-\w+)>", request["messages"][-1]["content"][-1]["text"])
        return reply({"text": f"Well.\n<{tags[-1]}>{ANSWER}</{tags[-1]}>" if tags else "plain"})


def test_the_service_gets_the_schema_and_can_cache_the_system_prompt() -> None:
    session = FakeSession(Service())
    model = foundation(session, system="Be strict.")
    assert model.generate_json(["a", "b"], SCHEMA, system="Grade.") == [Generation(ANSWER, "stop", 7, 4, 0.0)] * 2
    request = session.bodies[0]
    assert request["system"] == [{"text": "Be strict.\n\nGrade."}, {"cachePoint": {"type": "default"}}]
    definition = request["outputConfig"]["textFormat"]["structure"]["jsonSchema"]
    assert json.loads(definition["schema"]) == SCHEMA
    assert {body["messages"][0]["content"][0]["text"] for body in session.bodies} == {"a", "b"}
    model.generate(["plain"])
    assert "outputConfig" not in session.bodies[-1]
    assert session.bodies[-1]["system"] == [{"text": "Be strict."}]


@pytest.mark.parametrize(
    ("refused", "tries"),
    [
        (("format",), 2),
        (("format", "cache"), 3),
        (("format", "tool"), 3),
        (("format", "cache", "temperature", "tool"), 5),
    ],
)
def test_refused_features_are_left_out_of_later_requests(
    refused: tuple[str, ...], tries: int, caplog: pytest.LogCaptureFixture
) -> None:
    session = FakeSession(Service(*refused))
    model = foundation(session, temperature=0.0, concurrency=1)
    answers = model.generate_json(["a", "b", "c"], SCHEMA, system="Grade.")
    assert [json.loads(answer.text) for answer in answers] == [{"verdict": 100}] * 3
    assert len(session.bodies) == tries + 2
    assert "global.some.judge" in caplog.text
    changed = {"format": "structure='format'", "cache": "caching=True", "temperature": "temperature=0.0"}
    assert {name for name, option in changed.items() if option in caplog.text} == set(refused) - {"tool"}


def test_a_tool_call_is_forced() -> None:
    session = FakeSession(Service("format"))
    foundation(session).generate_json(["a"], SCHEMA)
    config = session.bodies[-1]["toolConfig"]
    assert config["tools"][0]["toolSpec"]["inputSchema"] == {"json": SCHEMA}
    assert config["toolChoice"] == {"tool": {"name": "answer"}}
    assert "system" not in session.bodies[-1]


def test_a_prompt_that_is_invalid_in_every_form_does_not_change_later_requests() -> None:
    def too_long(request: dict[str, Any]) -> dict[str, Any]:
        if request["messages"][0]["content"][0]["text"].startswith("long"):
            raise refusal("ValidationException", "Input is too long for requested model.")
        return Service()(request)

    session = FakeSession(too_long)
    model = foundation(session, concurrency=1)
    with pytest.raises(BedrockError, match="too long"):
        model.generate_json(["long"], SCHEMA)
    model.generate_json(["short"], SCHEMA)
    assert "outputConfig" in session.bodies[-1]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("AccessDeniedException", "You don't have access to the model."),
        ("ValidationException", "Invocation of model ID x with on-demand throughput isn't supported."),
    ],
)
def test_other_refusals_are_not_about_the_structure(code: str, message: str) -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise refusal(code, message)

    session = FakeSession(refuse)
    with pytest.raises(BedrockError):
        foundation(session).generate_json(["a"], SCHEMA, system="Grade.")
    assert len(session.bodies) == 1


@pytest.mark.parametrize("text", ["TAG", f"<x>{ANSWER}</x>", f"<TAG>{ANSWER}</TAG> and more", f"<TAG>{ANSWER}"])
def test_without_the_right_tags_the_answer_is_returned_unchanged(text: str) -> None:
    sent: list[str] = []

    def untidy(request: dict[str, Any]) -> dict[str, Any]:
        if "outputConfig" in request or "toolConfig" in request:
            raise UNSUPPORTED
        tag = re.findall(r"<(answer-\w+)>", request["messages"][-1]["content"][-1]["text"])[-1]
        sent.append(text.replace("TAG", tag))
        return reply({"text": sent[-1]})

    (answer,) = foundation(FakeSession(untidy)).generate_json(["a"], SCHEMA)
    assert [answer.text] == sent


def test_cached_tokens_count_as_prompt_tokens() -> None:
    session = FakeSession(lambda _: reply({"text": ANSWER}, cacheReadInputTokens=1000, cacheWriteInputTokens=20))
    (answer,) = foundation(session).generate_json(["a"], SCHEMA, system="Grade.")
    assert (answer.prompt_tokens, answer.completion_tokens) == (1027, 4)


class ClaudeSession(FakeSession):
    def invoke_model(self, *, modelId: str, body: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        check_request("bedrock-runtime", "InvokeModel", {"modelId": modelId, "body": body.encode()})
        request = json.loads(body)
        self.bodies.append(request)
        return {"body": io.BytesIO(json.dumps(self.answer(request)).encode())}


def test_claude_through_invoke_model() -> None:
    def claude(request: dict[str, Any]) -> dict[str, Any]:
        usage = {"input_tokens": 5, "cache_read_input_tokens": 100, "output_tokens": 3}
        if "output_config" in request:
            raise refusal("ValidationException", "output_config: Extra inputs are not permitted")
        content: list[dict[str, Any]] = [{"type": "thinking", "thinking": "hm", "signature": "s"}]
        if "tools" in request:
            content.append({"type": "tool_use", "id": "1", "name": "answer", "input": {"verdict": 100}})
        else:
            content.append({"type": "text", "text": "fine"})
        return {
            "content": content,
            "stop_reason": "max_tokens" if "tools" not in request else "tool_use",
            "usage": usage,
        }

    session = ClaudeSession(claude)
    model = foundation(session, api="claude", temperature=0.5, top_p=0.9, top_k=250, stop=["END"])
    (answer,) = model.generate_json(["a"], SCHEMA, system="Grade.")
    assert (answer.text, answer.prompt_tokens, answer.completion_tokens) == (ANSWER, 105, 3)
    first, second = session.bodies
    assert first == {
        "anthropic_version": "bedrock-2023-05-31",
        "max_tokens": 1024,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 250,
        "stop_sequences": ["END"],
        "system": [{"type": "text", "text": "Grade.", "cache_control": {"type": "ephemeral"}}],
        "messages": [{"role": "user", "content": "a"}],
        "output_config": {"format": {"type": "json_schema", "schema": SCHEMA}},
    }
    assert second["tool_choice"] == {"type": "tool", "name": "answer"}
    with pytest.warns(UserWarning, match=r"\b1 of 1\b.*max_tokens"):
        assert model.generate(["b"])[0].text == "fine"


def test_an_answer_of_claude_that_is_not_json_is_an_error_with_the_model_id() -> None:
    class Damaged(ClaudeSession):
        def invoke_model(self, **_: Any) -> dict[str, Any]:
            return {"body": io.BytesIO(b"<html>")}

    with pytest.raises(GenerationError, match=r"global\.some\.judge"):
        foundation(Damaged(), api="claude").generate(["a"])


def test_an_answer_without_content_is_an_error() -> None:
    session = FakeSession(lambda _: reply() | {"stopReason": "guardrail_intervened"})
    with pytest.raises(GenerationError, match="guardrail_intervened"):
        foundation(session).generate_json(["a"], SCHEMA)


def test_the_fingerprint_depends_on_the_options_and_not_on_refusals() -> None:
    def fingerprint(model_id: str = "m", **options: Any) -> str:
        return foundation(FakeSession(Service("temperature")), model_id, **options).fingerprint

    found = [
        fingerprint(), fingerprint("n"), fingerprint(system="s"), fingerprint(max_tokens=5),
        fingerprint(temperature=0.5), fingerprint(stop=["x"]), fingerprint(api="claude"),
        fingerprint(top_p=0.5), fingerprint(top_k=5),
    ]  # fmt: skip
    assert len(set(found)) == len(found)
    model: FoundationModel = foundation(FakeSession(Service("format", "temperature")), temperature=0.5)
    before = model.fingerprint
    model.generate_json(["a"], SCHEMA)
    assert model.fingerprint == before


def test_an_unknown_api_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"api\b.*'mantle'"):
        foundation(FakeSession(), api="mantle")
