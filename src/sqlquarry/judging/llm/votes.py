"""From opinions to one judgement: a verdict needs more than half of all votes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean, median

from sqlquarry.answers import Judgement, Verdict
from sqlquarry.judging.llm.replies import Opinion

INCONSISTENT = "another verdict in the other order"


@dataclass(frozen=True, slots=True)
class Vote:
    """Hold what one judge answered once, in each order in which it was shown the queries.

    Args:
        model: the judge.
        outcomes: for each order an opinion, or why there is none.
        passing_score: the lowest score that counts as correct.
    """

    model: str
    outcomes: tuple[Opinion | str, ...]
    passing_score: int

    @property
    def result(self) -> str:
        """Return "correct" or "wrong", or why this vote does not count."""
        if problem := next((outcome for outcome in self.outcomes if isinstance(outcome, str)), None):
            return problem
        passed = {opinion.score >= self.passing_score for opinion in self.opinions}
        if len(passed) == 2:
            return INCONSISTENT
        return "correct" if passed == {True} else "wrong"

    @property
    def opinions(self) -> list[Opinion]:
        """Return the readable outcomes."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Opinion)]

    @property
    def score(self) -> float | None:
        """Return the mean over the orders, 0 to 100; None if the vote does not count."""
        if self.result not in ("correct", "wrong"):
            return None
        return mean(opinion.score for opinion in self.opinions)

    @property
    def reason(self) -> str:
        """Return the judge's reasons, each once."""
        return " / ".join(dict.fromkeys(opinion.reason for opinion in self.opinions))

    @property
    def mistake(self) -> str | None:
        """Return the first mistake that the judge named."""
        return next((opinion.mistake for opinion in self.opinions if opinion.mistake), None)

    def details(self) -> dict[str, object]:
        """Return the vote for a report, ready for JSON."""
        return {
            "model": self.model,
            "verdict": self.result,
            "score": self.score,
            "scores": [outcome.score if isinstance(outcome, Opinion) else None for outcome in self.outcomes],
            "reason": self.reason,
            "mistake": self.mistake,
        }


def decide(grader: str, votes: Sequence[Vote], about: Mapping[str, object]) -> Judgement:
    """Return the judgement of a panel: its majority's verdict, and the median of the scores that count.

    Args:
        grader: its name.
        votes: at least one.
        about: further details (kind, model, rubric).
    """
    counts = Counter(vote.result for vote in votes)
    verdict: Verdict = "correct" if 2 * counts["correct"] > len(votes) else "wrong"
    scores = [vote.score for vote in votes if vote.score is not None]
    details: dict[str, object] = {
        **about,
        "score": median(scores) if scores else None,
        "votes": [vote.details() for vote in votes],
    }
    if 2 * counts[verdict] <= len(votes):
        problems = [result for result, _ in counts.most_common() if result not in ("correct", "wrong")]
        reason = problems[0] if problems else "no majority among the votes"
        return Judgement(grader, "unjudged", reason, {**details, "reason": reason})
    first = next(vote for vote in votes if vote.result == verdict)  # of the majority
    details |= {"reason": first.reason, "mistake": first.mistake}
    return Judgement(grader, verdict, first.reason, details)
