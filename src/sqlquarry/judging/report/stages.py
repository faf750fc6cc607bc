"""Where a pipeline loses accuracy: the same records scored after each stage."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.judging.report.compare import compare_reports, require_same_records
from sqlquarry.judging.report.data import Report
from sqlquarry.judging.report.estimates import Estimate
from sqlquarry.judging.report.significance import PairedComparison, holm, p_text
from sqlquarry.text import visible

_LEVEL = 0.05


class StageChange(NamedTuple):
    """Say what one stage changed.

    Args:
        before: the stage before.
        after: this stage.
        comparison: accuracies, fixed and broken records, the difference with its interval.
        other_text: records with another SQL text but the same verdict.
        adjusted_p: McNemar's p-value, corrected for the number of steps (Holm).
    """

    before: str
    after: str
    comparison: PairedComparison
    other_text: int
    adjusted_p: float


class StageComparison(NamedTuple):
    """Say what each stage changed.

    Args:
        first: the first stage's name.
        start: its accuracy.
        steps: one for each later stage.
        whole: the last stage against the first.
    """

    first: str
    start: Estimate
    steps: tuple[StageChange, ...]
    whole: PairedComparison

    @property
    def losses(self) -> tuple[StageChange, ...]:
        """Return the steps that lose accuracy beyond chance (adjusted p < 0.05), the largest first."""
        found = [step for step in self.steps if step.comparison.difference < 0 and step.adjusted_p < _LEVEL]
        return tuple(sorted(found, key=lambda step: step.comparison.difference))

    def __str__(self) -> str:
        width = max(map(len, (self.first, *(step.after for step in self.steps), "stage")))
        lines = [
            f"{'stage':<{width}}  accuracy  points  95 % interval    fixed  broken  other text  p",
            f"{self.first:<{width}}  {self.start.value:8.1%}",
        ]
        for step in self.steps:
            found = step.comparison
            interval = f"{100 * found.low:+6.1f} – {100 * found.high:+6.1f}"
            lines.append(
                f"{step.after:<{width}}  {found.after.value:8.1%}  {100 * found.difference:+6.1f}  {interval}  "
                f"{found.fixed:>6}  {found.broken:>6}  {step.other_text:>10}  {p_text(step.adjusted_p)}"
            )
        return visible("\n".join([*lines, f"{self.first} to {self.steps[-1].after}: {self.whole}", self.verdict]))

    @property
    def verdict(self) -> str:
        """Say where the loss occurs, in one sentence."""
        if self.losses:
            return "accuracy is lost " + " and ".join(
                f"from {step.before} to {step.after} ({100 * step.comparison.difference:+.1f} points)"
                for step in self.losses
            )
        worst = max(step.comparison.detectable for step in self.steps)
        return f"no step loses accuracy beyond chance; a loss of {100 * worst:.1f} points would have been found"


def compare_stages(stages: Mapping[str, Report], *, grader: str | None = None) -> StageComparison:
    """Compare each stage with the one before, on the same records.

        print(compare_stages({"adapter": adapter, "merged": merged, "imported": imported}))

    Args:
        stages: report by stage, in the order of the pipeline.
        grader: whose verdicts; the first grader of the first report if not given.

    Raises:
        JudgingError: there are fewer than two stages, or they are not of the same records and graders.
    """
    if len(stages) < 2:
        raise JudgingError(f"compare_stages needs at least two stages, not {list(stages)}")
    require_same_records(stages)
    names, reports = list(stages), list(stages.values())
    grader = grader or reports[0].graders[0]
    compared = [compare_reports(before, after, grader=grader) for before, after in pairwise(reports)]
    adjusted = holm([found.p_value for found in compared])
    steps = (
        StageChange(before, after, found, _other_text(stages[before], stages[after], grader), p)
        for (before, after), found, p in zip(pairwise(names), compared, adjusted, strict=True)
    )
    whole = compare_reports(reports[0], reports[-1], grader=grader)
    return StageComparison(names[0], reports[0].accuracy(grader), tuple(steps), whole)


def _other_text(before: Report, after: Report, grader: str) -> int:
    """Count the records with another SQL text but the same verdict."""
    verdicts = zip(before.verdicts_by(grader), after.verdicts_by(grader), strict=True)
    return sum(
        one == other and old.sql.split() != new.sql.split()
        for (one, other), old, new in zip(verdicts, before.entries, after.entries, strict=True)
    )
