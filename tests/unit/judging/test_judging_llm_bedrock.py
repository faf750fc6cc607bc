"""LLMGrader with FoundationModel, for models with and without structured output and tools."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from botocore.exceptions import ClientError

import sqlquarry as sq
from judging_llm_fakes import RECORD, RIGHT, WRONG, candidate_in, graded
from sqlquarry.errors import BedrockError, JudgeFailedError


class Bedrock:
    """A boto3 session and client whose model lacks some features and grades honestly."""

    def __init__(self, *lacks: str) -> None:
        self.lacks, self.requests = lacks, list[dict[str, Any]]()

    def client(self, *_: Any, **__: Any) -> Bedrock:
        return self

    def converse(self, **request: Any) -> dict[str, Any]:
        self.requests.append(request)
        refused = {"outputConfig", "toolConfig"} & request.keys() & set(self.lacks)
        if refused:
            raise ClientError({"Error": {"Code": "ValidationException", "Message": f"{refused}: unknown"}}, "Converse")
        text = request["messages"][0]["content"][0]["text"]
        answer = {"reason": f"saw {candidate_in(text)}", "verdict": 100 if "COUNT" in candidate_in(text) else 0}
        block: dict[str, Any] = {"text": json.dumps(answer)}
        if "toolConfig" in request:
            block = {"toolUse": {"toolUseId": "1", "name": "answer", "input": answer}}
        elif "outputConfig" not in request:
            tag = re.findall(r"<(answer-\w+)>", text)[-1]
            block = {"text": f"I quote: {candidate_in(text)}\n<{tag}>\n{json.dumps(answer)}\n</{tag}>\n"}
        usage = {"inputTokens": 50, "outputTokens": 5, "totalTokens": 55}
        return {"output": {"message": {"content": [block]}}, "stopReason": "end_turn", "usage": usage}


@pytest.mark.parametrize(("lacks", "requests"), [((), 2), (("outputConfig",), 3), (("outputConfig", "toolConfig"), 4)])
def test_verdicts_are_the_same_with_structured_output_with_a_tool_and_with_tags(
    lacks: tuple[str, ...], requests: int
) -> None:
    bedrock = Bedrock(*lacks)
    model = sq.FoundationModel("global.judge", session=bedrock, concurrency=1, show_progress=False)
    grader = graded(model, usd_per_million_tokens=(1.0, 10.0))
    right, wrong = grader.grade_all([RECORD] * 2, [RIGHT, WRONG])
    assert (right.verdict, wrong.verdict, wrong.reason) == ("correct", "wrong", f"saw {WRONG}")
    assert right.details["model"] == "global.judge"
    assert len(bedrock.requests) == requests
    assert grader.cost_usd == pytest.approx(2e-4)
    assert "global.judge" in str(grader.fingerprint(RECORD))


def test_a_model_without_access_ends_the_run_with_the_error_of_the_service_as_cause() -> None:
    class Closed(Bedrock):
        def converse(self, **request: Any) -> dict[str, Any]:
            self.requests.append(request)
            raise ClientError({"Error": {"Code": "AccessDeniedException", "Message": "no access"}}, "Converse")

    bedrock = Closed()
    grader = graded(sq.FoundationModel("global.judge", session=bedrock, concurrency=1, show_progress=False))
    with pytest.raises(JudgeFailedError, match=r"BedrockError \(AccessDeniedException\)") as caught:
        grader.grade_all([RECORD] * 100, [RIGHT] * 100)
    assert isinstance(caught.value.__cause__, BedrockError)
    assert len(bedrock.requests) < 20
