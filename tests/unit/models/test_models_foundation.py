"""FoundationModel through Converse: requests, answers, what models refuse."""

from __future__ import annotations

from typing import Any

import pytest

from bedrock_runtime_fakes import RECORD, THROTTLED, FakeSession, foundation, refusal
from sqlquarry.answers import Generation, TextGenerator
from sqlquarry.errors import BedrockError, ConfigError, GenerationError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record

GOLD = Record(RECORD.question, RECORD.schema, sql="SELECT COUNT(*) FROM t")


def converse(request: dict[str, Any]) -> dict[str, Any]:
    text = request["messages"][-1]["content"][0]["text"]
    return {
        "output": {"message": {"role": "assistant", "content": [{"text": text.upper()}]}},
        "stopReason": "end_turn",
        "usage": {"inputTokens": 11, "outputTokens": 4, "totalTokens": 15},
    }


def test_texts_and_records_become_messages_without_the_gold() -> None:
    session = FakeSession(converse)
    generator: TextGenerator = foundation(session, system="Be brief.", max_tokens=9, stop=[";"])
    (answer,) = generator.generate(["hi"])
    assert answer == Generation("HI", "stop", 11, 4, 0.0)
    generator.generate([GOLD])
    text, record = session.bodies
    assert text == {
        "modelId": "global.some.judge",
        "messages": [{"role": "user", "content": [{"text": "hi"}]}],
        "system": [{"text": "Be brief."}],
        "inferenceConfig": {"maxTokens": 9, "stopSequences": [";"]},
    }
    system, user = PromptFormatter().messages(RECORD)
    assert record["system"] == [{"text": system["content"]}]
    assert record["messages"] == [{"role": "user", "content": [{"text": user["content"]}]}]


def test_reasoning_blocks_are_left_out() -> None:
    content = [{"reasoningContent": {"reasoningText": {"text": "hm"}}}, {"text": "a"}, {"text": "b"}]
    session = FakeSession(lambda _: {"output": {"message": {"content": content}}, "stopReason": "end_turn"})
    assert foundation(session).generate(["x"]) == [Generation("ab", "stop", None, None, 0.0)]


def test_cut_answers_are_warned_about() -> None:
    session = FakeSession(lambda request: converse(request) | {"stopReason": "max_tokens"})
    with pytest.warns(UserWarning, match="1 of 1 answers were cut at 1024 tokens") as caught:
        assert foundation(session).generate(["x"])[0].stop_reason == "length"
    assert caught[0].filename == __file__  # the line that asked


def test_an_answer_without_text_is_an_error_without_its_content() -> None:
    session = FakeSession(
        lambda _: {"output": {"message": {"content": [{"toolUse": "secret"}]}}, "stopReason": "tool_use"}
    )
    with pytest.raises(GenerationError, match=r"without text.*'tool_use'.*toolUse") as caught:
        foundation(session).generate(["x"])
    assert "secret" not in str(caught.value)


def test_a_refused_temperature_is_dropped_for_good(caplog: pytest.LogCaptureFixture) -> None:
    def modern(request: dict[str, Any]) -> dict[str, Any]:
        if "temperature" in request["inferenceConfig"]:
            raise refusal("ValidationException", "`temperature` is deprecated for this model.")
        return converse(request)

    session = FakeSession(modern)
    model = foundation(session, temperature=0.0, concurrency=1)
    assert [answer.text for answer in model.generate(["a", "b"])] == ["A", "B"]
    assert ["temperature" in request["inferenceConfig"] for request in session.bodies] == [True, False, False]
    assert "refuses temperature" in caplog.text


def test_a_temperature_is_sent_where_it_was_asked_for_and_kept_on_other_errors() -> None:
    session = FakeSession(converse)
    foundation(session, temperature=0.5).generate(["a"])
    foundation(session).generate(["a"])
    assert [request["inferenceConfig"].get("temperature") for request in session.bodies] == [0.5, None]

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise refusal("ValidationException", "malformed")

    with pytest.raises(BedrockError, match="malformed"):
        foundation(FakeSession(refuse), temperature=0.5).generate(["a"])


def test_a_bare_id_that_needs_a_profile_is_told_so() -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise refusal(
            "ValidationException",
            "Invocation of model ID anthropic.claude-sonnet-5 with on-demand throughput isn't supported. Retry your "
            "request with the ID or ARN of an inference profile that contains this model.",
        )

    with pytest.raises(BedrockError, match=r"'global\.anthropic\.claude-sonnet-5'"):
        foundation(FakeSession(refuse), "anthropic.claude-sonnet-5").generate(["a"])


def test_it_waits_when_throttled_and_keeps_the_order() -> None:
    left = [3]

    def busy(request: dict[str, Any]) -> dict[str, Any]:
        left[0] -= 1
        if left[0] >= 0:
            raise THROTTLED
        return converse(request)

    answers = foundation(FakeSession(busy), concurrency=4).generate([f"p{i}" for i in range(20)])
    assert [answer.text for answer in answers] == [f"P{i}" for i in range(20)]


def test_an_error_carries_the_answers_so_far() -> None:
    def second_fails(request: dict[str, Any]) -> dict[str, Any]:
        if request["messages"][0]["content"][0]["text"] == "b":
            raise refusal("AccessDeniedException")
        return converse(request)

    model = foundation(FakeSession(second_fails), concurrency=1)
    with pytest.raises(BedrockError) as caught:
        model.generate(["a", "b"])
    partial = caught.value.partial  # type: ignore[attr-defined] - set by `generate`
    assert partial[0].text == "A"
    assert partial[1] is None


def test_bad_options_are_named_all_at_once() -> None:
    session = FakeSession()
    with pytest.raises(ConfigError) as caught:
        foundation(session, " ", max_tokens=0, temperature=-1.0)
    for part in ("model_id is empty", "max_tokens is 0", "temperature is -1.0"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="stop is 'x'"):
        foundation(session, stop="x")
    assert session.asked_for == []
    with pytest.raises(ConfigError, match="Put it in a list"):
        foundation(session).generate("one")
