"""FoundationModel through Converse: requests, answers and refusals."""

from __future__ import annotations

import re
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


def test_an_answer_without_a_stop_reason_or_usage_is_complete() -> None:
    session = FakeSession(lambda _: {"output": {"message": {"content": [{"text": "a"}]}}})
    assert foundation(session).generate(["x"]) == [Generation("a", "stop", None, None, 0.0)]


def test_cut_answers_are_warned_about() -> None:
    session = FakeSession(lambda request: converse(request) | {"stopReason": "max_tokens"})
    with pytest.warns(UserWarning, match=r"\b1 of 1\b.*\b1024\b.*max_tokens") as caught:
        assert foundation(session).generate(["x"])[0].stop_reason == "length"
    assert caught[0].filename == __file__  # the line that called `generate`


def test_the_error_for_an_answer_without_text_does_not_show_its_content() -> None:
    session = FakeSession(
        lambda _: {"output": {"message": {"content": [{"toolUse": "secret"}]}}, "stopReason": "tool_use"}
    )
    with pytest.raises(GenerationError, match=r"'tool_use'.*\['toolUse'\]") as caught:
        foundation(session).generate(["x"])
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "answer",
    [
        {"output": []},
        {"output": {"message": "secret"}},
        {"output": {"message": {"content": "secret"}}},
        {"output": {"message": {"content": ["secret"]}}},
        {"output": {"message": {"content": [{"text": 3}]}}},
        converse({"messages": [{"content": [{"text": "secret"}]}]}) | {"usage": {"inputTokens": "3"}},
        converse({"messages": [{"content": [{"text": "secret"}]}]}) | {"stopReason": 3},
    ],
)
def test_the_error_for_an_answer_of_unknown_form_does_not_show_its_content(answer: dict[str, Any]) -> None:
    with pytest.raises(GenerationError, match=r"global\.some\.judge.*TypeError") as caught:
        foundation(FakeSession(lambda _: answer)).generate(["x"])
    assert "secret" not in str(caught.value).lower()


def test_an_answer_that_breaks_off_is_requested_again() -> None:
    script = [{"ResponseMetadata": {}}]

    def breaks_once(request: dict[str, Any]) -> dict[str, Any]:
        return script.pop() if script else converse(request)

    session = FakeSession(breaks_once)
    assert foundation(session).generate(["a"])[0].text == "A"
    assert len(session.bodies) == 2


def test_a_refused_temperature_is_left_out_of_later_requests(caplog: pytest.LogCaptureFixture) -> None:
    def modern(request: dict[str, Any]) -> dict[str, Any]:
        if "temperature" in request["inferenceConfig"]:
            raise refusal("ValidationException", "`temperature` is deprecated for this model.")
        return converse(request)

    session = FakeSession(modern)
    model = foundation(session, temperature=0.0, concurrency=1)
    assert [answer.text for answer in model.generate(["a", "b"])] == ["A", "B"]
    assert ["temperature" in request["inferenceConfig"] for request in session.bodies] == [True, False, False]
    assert "temperature=0.0" in caplog.text


def test_top_p_and_top_k_are_sent_if_they_are_given_and_left_out_after_a_refusal() -> None:
    def modern(request: dict[str, Any]) -> dict[str, Any]:
        settings = request["inferenceConfig"]
        if {"temperature", "topP"} <= settings.keys():
            raise refusal("ValidationException", "`temperature` and `top_p` cannot both be specified for this model.")
        for name, known in (("topP", settings), ("top_k", request.get("additionalModelRequestFields", {}))):
            if name in known:
                raise refusal("ValidationException", f"{name}: Extra inputs are not permitted")
        return converse(request)

    options = {"temperature": 0.7, "top_p": 0.9, "top_k": 250}
    session = FakeSession(converse)
    foundation(session, **options).generate(["a"])
    (request,) = session.bodies
    assert request["inferenceConfig"] == {"maxTokens": 1024, "temperature": 0.7, "topP": 0.9}
    assert request["additionalModelRequestFields"] == {"top_k": 250}
    session = FakeSession(modern)
    model = foundation(session, concurrency=1, **options)
    assert [answer.text for answer in model.generate(["a", "b"])] == ["A", "B"]
    assert [len(one["inferenceConfig"]) for one in session.bodies] == [3, 2, 1, 1, 1]
    assert ["additionalModelRequestFields" in one for one in session.bodies] == [True, True, True, False, False]
    for option, value in (("top_p", 0.0), ("top_p", 1.5), ("top_k", 0)):
        with pytest.raises(ConfigError, match=rf"\b{option}\b.*\b{value}\b"):
            foundation(session, **{option: value})


def test_a_temperature_is_sent_only_if_it_is_given_and_kept_after_other_errors() -> None:
    session = FakeSession(converse)
    foundation(session, temperature=0.5).generate(["a"])
    foundation(session).generate(["a"])
    assert [request["inferenceConfig"].get("temperature") for request in session.bodies] == [0.5, None]

    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise refusal("ValidationException", "malformed")

    with pytest.raises(BedrockError, match="malformed"):
        foundation(FakeSession(refuse), temperature=0.5).generate(["a"])


def test_the_error_for_a_model_id_without_a_profile_suggests_one() -> None:
    def refuse(_: dict[str, Any]) -> dict[str, Any]:
        raise refusal(
            "ValidationException",
            "Invocation of model ID anthropic.claude-sonnet-5 with on-demand throughput isn't supported. Retry your "
            "request with the ID or ARN of an inference profile that contains this model.",
        )

    with pytest.raises(BedrockError, match=r"'global\.anthropic\.claude-sonnet-5'"):
        foundation(FakeSession(refuse), "anthropic.claude-sonnet-5").generate(["a"])


def test_throttled_requests_are_retried_and_answers_keep_their_order() -> None:
    left = [3]

    def busy(request: dict[str, Any]) -> dict[str, Any]:
        left[0] -= 1
        if left[0] >= 0:
            raise THROTTLED
        return converse(request)

    session = FakeSession(busy)
    answers = foundation(session, concurrency=4).generate([f"p{i}" for i in range(20)])
    assert [answer.text for answer in answers] == [f"P{i}" for i in range(20)]
    assert len(session.bodies) == 23


def test_an_error_contains_the_answers_so_far() -> None:
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


def test_all_bad_options_are_reported_at_once() -> None:
    session = FakeSession()
    with pytest.raises(ConfigError) as caught:
        foundation(session, " ", max_tokens=0, temperature=-1.0)
    for option in (r"model_id\b", r"max_tokens\b\D*\b0\b", r"temperature\b.*-1\.0"):
        assert re.search(option, str(caught.value))
    with pytest.raises(ConfigError, match=r"stop\b.*'x'"):
        foundation(session, stop="x")
    assert repr(foundation(FakeSession())) == "FoundationModel('global.some.judge')"
    assert session.asked_for == []
    with pytest.raises(ConfigError, match="'one'"):
        foundation(session).generate("one")
