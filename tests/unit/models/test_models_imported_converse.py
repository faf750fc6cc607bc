"""`request_schema="converse"`: requests, answers, and the fallback to InvokeModel."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from bedrock_runtime_fakes import ARN, COLD, RECORD, THROTTLED, FakeSession, FakeTime, imported, refusal, retry_policy
from sqlquarry.answers import Generation
from sqlquarry.errors import BedrockError, ConfigError, GenerationError, ModelNotReadyError

UNSUPPORTED = refusal(
    "ValidationException",
    "This action doesn't support the model that you provided. Try again with a supported text or chat model.",
)


class Chat(FakeSession):
    """A model that echoes its last message, through Converse and through InvokeModel with messages."""

    def __init__(self, *, supported: Any = True, refuses: Exception | None = None) -> None:
        super().__init__(self.answer_messages)
        self.supported, self.refuses, self.described = supported, refuses, 0

    def answer_messages(self, body: dict[str, Any]) -> dict[str, Any]:
        text = body["messages"][-1]["content"]
        usage = {"prompt_tokens": 10, "completion_tokens": 3}
        return {"choices": [{"message": {"content": text.upper()}, "finish_reason": "length"}], "usage": usage}

    def converse(self, **request: Any) -> Any:
        self.bodies.append(request)
        if self.refuses:
            raise self.refuses
        text = request["messages"][-1]["content"][0]["text"].upper()
        usage = {"inputTokens": 10, "outputTokens": 3, "totalTokens": 13}
        message = {"role": "assistant", "content": [{"text": text}]}
        return {"output": {"message": message}, "stopReason": "max_tokens", "usage": usage}

    def converse_stream(self, **request: Any) -> Any:
        answer = self.converse(**request)
        (block,) = answer["output"]["message"]["content"]
        return {
            "stream": Events(
                {"messageStart": {"role": "assistant"}},
                *({"contentBlockDelta": {"contentBlockIndex": 0, "delta": {"text": one}}} for one in block["text"]),
                {"contentBlockStop": {"contentBlockIndex": 0}},
                {"messageStop": {"stopReason": answer["stopReason"]}},
                {"metadata": {"usage": answer["usage"], "metrics": {"latencyMs": 1}}},
            )
        }

    def get_imported_model(self, *, modelIdentifier: str) -> dict[str, Any]:  # noqa: N803 - boto3's name
        self.described += 1
        if isinstance(self.supported, Exception):
            raise self.supported
        return super().get_imported_model(modelIdentifier=modelIdentifier) | {"instructSupported": self.supported}


class Events(list[Any]):
    def __init__(self, *events: Any) -> None:
        super().__init__(events)

    def close(self) -> None:
        self.clear()


def plain(answers: list[Generation]) -> list[Any]:
    return [(one.text, one.stop_reason, one.prompt_tokens, one.completion_tokens) for one in answers]


@pytest.mark.filterwarnings("ignore:.*cut at")
def test_converse_gets_the_system_prompt_of_a_record_separately() -> None:
    session = Chat()
    answers = imported(session, request_schema="converse", max_tokens=7, stop=[";"]).generate([RECORD, RECORD])
    system, user = imported(FakeSession()).formatter.messages(RECORD)
    assert session.bodies[0] == {
        "modelId": ARN,
        "messages": [{"role": "user", "content": [{"text": user["content"]}]}],
        "system": [{"text": system["content"]}],
        "inferenceConfig": {"maxTokens": 7, "temperature": 0, "stopSequences": [";"]},
    }
    assert plain(answers) == [(user["content"].upper(), "length", 10, 3)] * 2
    assert session.described == 1


@pytest.mark.filterwarnings("ignore:.*cut at")
@pytest.mark.parametrize(
    ("options", "refused"), [({"supported": False}, 0), ({"supported": None}, 0), ({"refuses": UNSUPPORTED}, 1)]
)
def test_a_model_without_converse_is_called_through_invoke_model_from_then_on(
    options: dict[str, Any], refused: int, caplog: pytest.LogCaptureFixture
) -> None:
    session, same = Chat(**options), Chat()
    with caplog.at_level(logging.WARNING):
        model = imported(session, request_schema="converse", concurrency=1)
        answers = model.generate(["a", "b"]) + model.generate(["c"])
    assert plain(answers) == plain(imported(same, request_schema="messages").generate(["a", "b", "c"]))
    assert [body for body in session.bodies if "max_tokens" in body] == same.bodies
    assert len([body for body in session.bodies if "modelId" in body]) == refused
    assert (len(caplog.records), session.described, model.usage.requests) == (1, 1, 3)


@pytest.mark.filterwarnings("ignore:.*cut at")
def test_without_permission_to_describe_the_model_converse_is_tried() -> None:
    session = Chat(supported=refusal("AccessDeniedException"))
    imported(session, request_schema="converse").generate(["a"])
    assert [body["modelId"] for body in session.bodies] == [ARN]


def test_other_errors_while_describing_the_model_are_raised() -> None:
    session = Chat(supported=refusal("ResourceNotFoundException", "no such model"))
    with pytest.raises(BedrockError, match="no such model"):
        imported(session, request_schema="converse").generate(["a"])
    assert session.bodies == []


def test_another_refusal_is_an_error_and_causes_no_fallback() -> None:
    session = Chat(refuses=refusal("ValidationException", "maxTokens is too large"))
    with pytest.raises(BedrockError, match="too large"):
        imported(session, request_schema="converse").generate(["a"])
    assert len(session.bodies) == 1


@pytest.mark.filterwarnings("ignore:.*cut at")
def test_converse_waits_for_cold_and_throttled_models_too() -> None:
    time, session = FakeTime(), Chat()
    script = [COLD, COLD, THROTTLED]
    stock = session.converse

    def converse(**request: Any) -> Any:
        if script:
            raise script.pop(0)
        return stock(**request)

    session.converse = converse
    model = imported(session, request_schema="converse", retry=retry_policy(time, cold_start_interval_s=10))
    assert model.generate(["a"])[0].text == "A"
    assert time.sleeps[:2] == [10, 10]
    session.refuses = COLD
    with pytest.raises(ModelNotReadyError) as caught:
        model.generate(["a"])
    assert caught.value.partial == (None,)


@pytest.mark.filterwarnings("ignore:.*cut at")
def test_streaming_through_converse() -> None:
    session = Chat()
    model = imported(session, request_schema="converse")
    assert list(model.stream("abc")) == ["A", "B", "C"]
    assert (model.usage.prompt_tokens, model.usage.completion_tokens) == (10, 3)
    assert list(model.stream("")) == []


def test_an_answer_without_text_is_an_error() -> None:
    session = Chat()
    session.converse = lambda **_: {"output": {"message": {"content": []}}}
    with pytest.raises(GenerationError):
        imported(session, request_schema="converse").generate(["a"])


@pytest.mark.parametrize("options", [{"logprobs": True}, {"structured": {"json": {"type": "object"}}}])
def test_the_error_for_options_that_converse_does_not_support_has_a_schema_that_does(options: dict[str, Any]) -> None:
    session = Chat()
    with pytest.raises(ConfigError, match=rf"{next(iter(options))}\b.*'converse'.*'messages'"):
        imported(session, request_schema="converse", **options)
    assert session.asked_for == []


@pytest.mark.parametrize(("name", "meant"), [("max_tokenz", "max_tokens"), ("concurency", "concurrency")])
def test_an_option_that_is_not_one_is_refused_with_the_nearest(name: str, meant: str) -> None:
    model = imported(FakeSession())
    with pytest.raises(ConfigError, match=rf"{name}\b.*'{meant}'"):
        model.with_options(**{name: 4})
    with pytest.raises(ConfigError, match="xyz"):
        model.with_options(xyz=1)


def test_with_options_accepts_all_options_of_the_constructor() -> None:
    import inspect

    from sqlquarry.models import ImportedModel
    from sqlquarry.models.imported.model import ImportedModelOptions

    keywords = {
        name: one.annotation
        for name, one in inspect.signature(ImportedModel).parameters.items()
        if one.kind is one.KEYWORD_ONLY
    }
    assert {name: one.__forward_arg__ for name, one in ImportedModelOptions.__annotations__.items()} == keywords
    model = imported(FakeSession())
    assert model.formatter is not None
    assert model.with_options(max_tokens=5).formatter is model.formatter
    assert model.with_options(formatter=None).formatter is None
