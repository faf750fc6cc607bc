"""LLMGrader with scripted judges: verdicts, votes, failures and usage."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from judging_llm_fakes import RECORD, RIGHT, WRONG, Scripted, Structured, candidate_in, graded, honest, tags
from sqlquarry.answers import Generation, TextGenerator
from sqlquarry.errors import BedrockError, ConfigError, JudgeFailedError, JudgingError
from sqlquarry.judging.llm import STRICT, JudgeUsage, LLMGrader, Rubric, StructuredGenerator
from sqlquarry.judging.llm.judge_model import UNREADABLE
from sqlquarry.judging.llm.votes import INCONSISTENT


def test_scores_become_verdicts_by_the_passing_score_and_say_why() -> None:
    judge: TextGenerator = Scripted()
    grader = graded(judge)
    right, wrong = grader.grade_all([RECORD, RECORD], [RIGHT, WRONG])
    assert (right.grader, right.verdict, right.reason) == ("llm", "correct", "because")
    assert wrong.verdict == "wrong"
    assert wrong.details["kind"] == "llm"
    assert (wrong.details["model"], wrong.details["rubric"], wrong.details["score"]) == ("scripted", "graded", 20)
    assert wrong.details["votes"][0]["verdict"] == "wrong"
    json.dumps(right.details)
    assert graded(judge, passing_score=20).grade(RECORD, WRONG).verdict == "correct"


def test_many_records_are_one_batch_without_those_that_need_no_judge() -> None:
    judge = Scripted()
    records = [RECORD, RECORD.asked, RECORD, RECORD]
    verdicts = graded(judge).grade_all(records, [RIGHT, RIGHT, "", WRONG])
    assert [one.verdict for one in verdicts] == ["correct", "unjudged", "wrong", "wrong"]
    assert "gold SQL" in verdicts[1].reason
    assert "gold" not in verdicts[2].reason
    assert "SQL" in verdicts[2].reason
    assert all(one.details["kind"] == "llm" for one in verdicts)
    assert [len(batch) for batch in judge.batches] == [2]
    assert graded(judge).grade_all([RECORD], [""])[0].verdict == "wrong"
    assert graded(judge).grade_all([], []) == []
    assert len(judge.batches) == 1


def test_structured_judges_get_schema_and_rubric_separately() -> None:
    judge = Structured(lambda prompt: {"reason": "r", "verdict": 95 if "COUNT" in candidate_in(prompt) else 0})
    generator: StructuredGenerator = judge
    assert [one.verdict for one in graded(generator).grade_all([RECORD] * 2, [RIGHT, WRONG])] == ["correct", "wrong"]
    ((prompts, schema, system),) = judge.asked
    assert schema["additionalProperties"] is False
    assert schema["properties"]["verdict"] == {"type": "integer", "enum": list(range(101))}
    assert list(schema["properties"]) == ["reason", "verdict"]
    assert "0 to 100" in system
    assert not any("0 to 100" in prompt for prompt in prompts)


def test_the_strict_rubric_reports_the_mistake() -> None:
    judge = Structured(lambda _: {"reason": "no filter", "mistake": "wrong filter", "verdict": "wrong"})
    verdict = LLMGrader(judge, rubric="strict").grade(RECORD, WRONG)
    assert (verdict.verdict, verdict.reason, verdict.details["mistake"]) == ("wrong", "no filter", "wrong filter")
    assert judge.asked[0][1]["properties"]["mistake"]["enum"] == ["none", *STRICT.mistakes]


def test_a_rubric_of_the_user() -> None:
    rubric = Rubric("german", "Richtig oder falsch?", {"richtig": 100, "falsch": 0}, passing_score=100)
    judge = Scripted(lambda prompt: tags(prompt, "richtig"))
    assert LLMGrader(judge, rubric=rubric).grade(RECORD, RIGHT).verdict == "correct"
    assert "Richtig oder falsch?" in judge.prompts[0]
    assert "richtig | falsch" in judge.prompts[0]


def test_a_question_with_an_unreadable_reply_is_asked_once_more_and_then_unjudged() -> None:
    replies = iter(["no idea", "still none"])
    judge = Scripted(lambda prompt: next(replies, honest(prompt)))
    grader = graded(judge)
    verdict = grader.grade(RECORD, RIGHT)
    assert (verdict.verdict, verdict.reason, verdict.details["score"]) == ("unjudged", UNREADABLE, None)
    assert grader.usage == JudgeUsage(2, 200, 20)
    replies = iter(["no idea"])
    assert grader.grade(RECORD, RIGHT).verdict == "correct"


def test_a_panel_votes_and_the_median_counts() -> None:
    judges = [Scripted(lambda prompt, s=score: tags(prompt, s), f"m{score}") for score in (95, 40, 100)]
    verdict = graded(judges).grade(RECORD, RIGHT)
    assert (verdict.verdict, verdict.details["score"]) == ("correct", 95)
    assert [(vote["model"], vote["verdict"]) for vote in verdict.details["votes"]] == [
        ("m95", "correct"), ("m40", "wrong"), ("m100", "correct"),
    ]  # fmt: skip
    assert verdict.details["model"] == "m95, m40, m100"
    split = graded(judges[:2]).grade(RECORD, RIGHT)
    assert split.verdict == "unjudged"
    assert [vote["verdict"] for vote in split.details["votes"]] == ["correct", "wrong"]
    assert "majority" in split.reason


def test_repeats_are_votes_of_one_judge() -> None:
    scores = iter([100, 0, 100])
    verdict = graded(Scripted(lambda prompt: tags(prompt, next(scores))), repeats=3).grade(RECORD, RIGHT)
    assert (verdict.verdict, len(verdict.details["votes"])) == ("correct", 3)
    # An unreadable vote counts for neither side, and 1 of 2 is not a majority.
    replies = iter([100, "?", "?"])
    verdict = graded(Scripted(lambda prompt: tags(prompt, next(replies))), repeats=2).grade(RECORD, RIGHT)
    assert (verdict.verdict, verdict.reason) == ("unjudged", UNREADABLE)


def test_with_swap_only_votes_that_are_the_same_in_both_orders_count() -> None:
    def first_is_best(prompt: str) -> str:
        return tags(prompt, 100 if prompt.index("<candidate-") < prompt.index("<reference-") else 0)

    biased, fair = Scripted(first_is_best), Scripted()
    verdict = graded(biased, swap=True).grade(RECORD, RIGHT)
    assert (verdict.verdict, verdict.reason) == ("unjudged", INCONSISTENT)
    assert verdict.details["votes"][0]["scores"] == [0, 100]
    assert len(biased.prompts) == 2
    verdicts = graded(fair, swap=True, repeats=2).grade_all([RECORD] * 2, [RIGHT, WRONG])
    assert [one.verdict for one in verdicts] == ["correct", "wrong"]
    assert [len(one.details["votes"]) for one in verdicts] == [2, 2]


def test_a_request_that_fails_leaves_only_its_record_unjudged() -> None:
    def refuse_one(prompt: str) -> str | Exception:
        return RuntimeError("key=secret") if "poison" in prompt else honest(prompt)

    judge = Scripted(refuse_one)
    sqls = [RIGHT, WRONG, "SELECT 'poison'", RIGHT, WRONG, RIGHT, RIGHT]
    verdicts = graded(judge).grade_all([RECORD] * 7, sqls)
    assert [one.verdict for one in verdicts] == [
        "correct", "wrong", "unjudged", "correct", "wrong", "correct", "correct",
    ]  # fmt: skip
    assert verdicts[2].reason.endswith(": RuntimeError")
    assert "secret" not in str(verdicts)


def test_the_code_of_an_aws_error_is_reported() -> None:
    from botocore.exceptions import ClientError

    error = BedrockError("secret")
    error.__cause__ = ClientError({"Error": {"Code": "ThrottlingException", "Message": "secret"}}, "Converse")
    verdict = graded(Scripted(lambda _: error)).grade(RECORD, RIGHT)
    assert verdict.reason.endswith(": BedrockError (ThrottlingException)")


def test_partial_answers_of_an_error_are_not_requested_again() -> None:
    calls: list[int] = []

    class Partial:
        def generate(self, inputs: Any, /) -> list[Generation]:
            calls.append(len(inputs))
            answers = [Generation(honest(prompt)) for prompt in inputs]
            if len(calls) == 1:
                error = BedrockError("throttled")
                error.partial = (answers[0], None, answers[2])
                raise error
            return answers

    verdicts = graded(Partial()).grade_all([RECORD] * 3, [RIGHT, WRONG, RIGHT])
    assert [one.verdict for one in verdicts] == ["correct", "unjudged", "correct"]
    assert calls == [3]


def test_after_five_failures_in_a_row_it_stops_and_keeps_finished_judgements() -> None:
    judge = Scripted(lambda prompt: honest(prompt) if "FROM t" in candidate_in(prompt) else ConnectionError("down"))
    grader = graded(judge)
    with pytest.raises(JudgeFailedError, match=r"scripted\b.*\b5\b.*\bConnectionError") as caught:
        grader.grade_all([RECORD] * 22, [RIGHT, WRONG, *["SELECT 1"] * 20])
    assert isinstance(caught.value, JudgingError)
    partial = caught.value.partial
    assert [one and one.verdict for one in partial] == ["correct", "wrong", *["unjudged"] * 5, *[None] * 15]
    assert len(judge.batches) < 25


def test_configuration_errors_and_wrong_numbers_of_answers_end_the_run() -> None:
    class Short:
        def generate(self, inputs: Any, /) -> list[Generation]:  # noqa: ARG002 - the protocol's
            return []

    with pytest.raises(ConfigError, match="min_records"):
        LLMGrader(Scripted(lambda _: ConfigError("min_records"))).grade(RECORD, RIGHT)
    with pytest.raises(JudgingError, match=r"\b0\b.*\b1\b"):
        graded(Short()).grade(RECORD, RIGHT)
    with pytest.raises(JudgingError, match=r"\b1\b.*\b2\b"):
        graded(Scripted()).grade_all([RECORD], [RIGHT, RIGHT])
    with pytest.raises(ConfigError, match=r"judge\b.*\b3\b.*generate"):
        LLMGrader(3)  # type: ignore[arg-type] - what the test is about


def test_a_batch_judge_is_asked_only_once() -> None:
    class Batch:
        min_records = 2

        def __init__(self) -> None:
            self.calls = 0

        def generate_json(self, prompts: Any, schema: Any, /, *, system: str = "") -> list[Generation]:  # noqa: ARG002 - the protocol's
            self.calls += 1
            error = BedrockError("1 of 3 has no answer")
            error.partial = (Generation('{"reason": "r", "verdict": 99}'), None, Generation("?"))
            raise error

    judge = Batch()
    verdicts = graded(judge).grade_all([RECORD] * 3, [RIGHT] * 3)
    assert [one.verdict for one in verdicts] == ["correct", "unjudged", "unjudged"]
    assert verdicts[1].reason.endswith(": BedrockError")
    assert verdicts[2].reason == UNREADABLE
    assert judge.calls == 1


def test_usage_and_cost_are_counted_by_judge() -> None:
    a, b = Scripted(), Structured(lambda _: {"reason": "", "verdict": 100})
    grader = graded([a, b], usd_per_million_tokens=[(3.0, 15.0), (1.0, 5.0)])
    assert grader.cost_usd == 0
    grader.grade_all([RECORD] * 10, [RIGHT] * 10)
    assert grader.usage == JudgeUsage(20, 1000, 100, unmetered=10)
    assert grader.cost_usd == pytest.approx((1000 * 3 + 100 * 15) / 1e6)
    assert graded(a).cost_usd is None
    assert graded([a, b], usd_per_million_tokens=(3, 15)).cost_usd == 0


def test_the_fingerprint_changes_with_all_that_a_verdict_depends_on() -> None:
    class Named(Scripted):
        def __init__(self, fingerprint: str) -> None:
            super().__init__()
            self.fingerprint = fingerprint

    a, b = Named("a"), Named("b")
    graders = [
        graded(a), graded(b), graded([a, b]), LLMGrader(a, rubric="strict"), graded(a, repeats=2),
        graded(a, swap=True), graded(a, passing_score=50),
    ]  # fmt: skip
    found = {grader.fingerprint(RECORD) for grader in graders}
    assert len(found) == len(graders)
    assert None not in found
    assert graded(a).fingerprint(RECORD) in found
    assert graded(Scripted()).fingerprint(RECORD) is None


def test_a_model_id_is_not_a_judge() -> None:
    for judge in ("global.a", ["global.a", "global.b"]):
        with pytest.raises((ConfigError, JudgingError), match="generate"):
            LLMGrader(judge)  # type: ignore[arg-type] - the mistake under test
    named = graded([Scripted(model_id="global.a"), Scripted(model_id="global.b")])
    assert named.grade(RECORD, RIGHT).details["model"] == "global.a, global.b"


def test_all_bad_options_are_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        LLMGrader(Scripted(), rubric="lenient", repeats=0, usd_per_million_tokens=[(1, 2), (3, 4)])
    for pattern in (r"rubric\b.*'lenient'", r"repeats\b.*\b0\b", r"usd_per_million_tokens\b.*\[\(1, 2\), \(3, 4\)\]"):
        assert re.search(pattern, str(caught.value))
    with pytest.raises(ConfigError, match=r"\bjudge\b"):
        graded([])
    with pytest.raises(JudgingError, match=r"passing_score\b.*\b101\b"):
        graded(Scripted(), passing_score=101)
    with pytest.raises(JudgingError, match=r"'x'.*\binstructions\b"):
        Rubric("x", " ", {"a": 100, "b": 0}, 50)
