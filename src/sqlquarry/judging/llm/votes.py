"""From opinions to one judgement: a verdict needs more than half of all votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean, median
from typing import Any

from sqlquarry.artifacts import Judgement
from sqlquarry.judging.llm.replies import Opinion

INCONSISTENT = "another verdict in the other order"


@dataclass(frozen=True, slots=True)
class Vote:
    """What one judge said once, in each order in which it was shown the queries.

    Args:
        model: the judge.
        outcomes: for each order an opinion, or why there is none.
        pass_mark: the lowest score that counts as correct.
    """

    model: str
    outcomes: tuple[Opinion | str, ...]
    pass_mark: int

    @property
    def result(self) -> str:
        """Either "correct" or "wrong", or why this vote does not count."""
        if problem := next((outcome for outcome in self.outcomes if isinstance(outcome, str)), None):
            return problem
        passed = {opinion.score >= self.pass_mark for opinion in self.opinions}
        if len(passed) == 2:
            return INCONSISTENT
        return "correct" if passed == {True} else "wrong"

    @property
    def opinions(self) -> list[Opinion]:
        """The readable ones."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Opinion)]

    @property
    def score(self) -> float | None:
        """Mean over the orders, 0 to 100; None where the vote does not count."""
        if self.result not in ("correct", "wrong"):
            return None
        return mean(opinion.score for opinion in self.opinions)

    def details(self) -> dict[str, Any]:
        """The vote for a report, ready for JSON."""
        reasons = [opinion.reason for opinion in self.opinions]
        return {
            "model": self.model,
            "verdict": self.result,
            "score": self.score,
            "scores": [outcome.score if isinstance(outcome, Opinion) else None for outcome in self.outcomes],
            "reason": " / ".join(dict.fromkeys(reasons)),
            "mistake": next((opinion.mistake for opinion in self.opinions if opinion.mistake), None),
        }


def decide(grader: str, votes: Sequence[Vote], about: dict[str, Any]) -> Judgement:
    """The judgement of a panel: its majority's verdict, and the median of the scores that count.

    Args:
        grader: its name.
        votes: at least one.
        about: further details (kind, model, rubric).
    """
    counts = Counter(vote.result for vote in votes)
    verdict = "correct" if 2 * counts["correct"] > len(votes) else "wrong"
    scores = [vote.score for vote in votes if vote.score is not None]
    details = {
        **about,
        "score": median(scores) if scores else None,
        "votes": [vote.details() for vote in votes],
    }
    if 2 * counts[verdict] <= len(votes):
        problems = [result for result, _ in counts.most_common() if result not in ("correct", "wrong")]
        reason = problems[0] if problems else "no majority among the votes"
        return Judgement(grader, "unjudged", reason, {**details, "reason": reason})
    spokesman = next(vote.details() for vote in votes if vote.result == verdict)
    details |= {"reason": spokesman["reason"], "mistake": spokesman["mistake"]}
    return Judgement(grader, "correct" if verdict == "correct" else "wrong", spokesman["reason"], details)
