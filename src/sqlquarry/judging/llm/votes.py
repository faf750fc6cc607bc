"""Turn the votes of judges into one judgement. A verdict needs more than half of all votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from sqlquarry.answers import Judgement, Verdict
from sqlquarry.judging.llm.replies import Opinion

INCONSISTENT = "a different verdict in the other order"


@dataclass(frozen=True, slots=True)
class Vote:
    """One vote of a judge, with an outcome for each order of the queries.

    Args:
        model: the name of the judge.
        outcomes: for each order an opinion, or the reason why there is none.
        passing_score: the lowest score that counts as correct.
    """

    model: str
    outcomes: tuple[Opinion | str, ...]
    passing_score: float

    @property
    def result(self) -> str:
        """Result of the vote: "correct", "wrong", or the reason why it does not count."""
        if problem := next((outcome for outcome in self.outcomes if isinstance(outcome, str)), None):
            return problem
        passed = {opinion.score >= self.passing_score for opinion in self.opinions}
        if len(passed) == 2:
            return INCONSISTENT
        return "correct" if passed == {True} else "wrong"

    @property
    def opinions(self) -> list[Opinion]:
        """The readable outcomes."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Opinion)]

    @property
    def score(self) -> float | None:
        """Mean score over the orders, 0 to 100, or None if the vote does not count."""
        if self.result not in ("correct", "wrong"):
            return None
        return mean(opinion.score for opinion in self.opinions)

    @property
    def reason(self) -> str:
        """The judge's reasons without duplicates."""
        return " / ".join(dict.fromkeys(opinion.reason for opinion in self.opinions))

    @property
    def mistake(self) -> str | None:
        """The first mistake that the judge reported, or None."""
        return next((opinion.mistake for opinion in self.opinions if opinion.mistake), None)

    def details(self) -> dict[str, object]:
        """Return the vote as JSON-ready details for a report."""
        return {
            "model": self.model,
            "verdict": self.result,
            "score": self.score,
            "scores": [outcome.score if isinstance(outcome, Opinion) else None for outcome in self.outcomes],
            "reason": self.reason,
            "mistake": self.mistake,
        }


def decide(grader: str, votes: Sequence[Vote], about: Mapping[str, object], *, is_graded: bool) -> Judgement:
    """Return the verdict of the majority, with the median of the scores that count.

    Args:
        grader: the name of the grader.
        votes: at least one vote.
        about: details to add (kind, model, rubric).
        is_graded: whether a score can differ from 0 and 100. Otherwise the judgement has no score.
    """
    counts = Counter(vote.result for vote in votes)
    verdict: Verdict = "correct" if 2 * counts["correct"] > len(votes) else "wrong"
    scores = [vote.score for vote in votes if vote.score is not None]
    details: dict[str, object] = {
        **about,
        "score": median(scores) if scores and is_graded else None,
        "votes": [vote.details() for vote in votes],
    }
    if 2 * counts[verdict] <= len(votes):
        problems = [result for result, _ in counts.most_common() if result not in ("correct", "wrong")]
        reason = problems[0] if problems else "no majority among the votes"
        return Judgement(grader, "unjudged", reason, {**details, "reason": reason})
    first = next(vote for vote in votes if vote.result == verdict)  # of a judge in the majority
    details |= {"reason": first.reason, "mistake": first.mistake}
    return Judgement(grader, verdict, first.reason, details)
