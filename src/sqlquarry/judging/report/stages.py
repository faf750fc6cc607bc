"""Find the stage at which a pipeline loses accuracy, from reports on the same records after each stage."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

from sqlquarry.errors import JudgingError
from sqlquarry.judging.report.compare import compare_reports, require_same_records
from sqlquarry.judging.report.data import Report
from sqlquarry.judging.report.estimates import Estimate
from sqlquarry.judging.report.significance import LEVEL, PairedComparison, holm, p_text
from sqlquarry.text import visible


class StageChange(NamedTuple):
    """The change from one stage to the next.

    Args:
        before: the name of the previous stage.
        after: the name of this stage.
        comparison: accuracies, fixed and broken records, and the difference with its interval.
        other_text: number of records with a different SQL text but the same verdict.
        adjusted_p: McNemar's p-value, corrected for the number of steps (Holm).
    """

    before: str
    after: str
    comparison: PairedComparison
    other_text: int
    adjusted_p: float


class StageComparison(NamedTuple):
    """The changes at each stage of a pipeline.

    Args:
        first: the name of the first stage.
        start: the accuracy of the first stage.
        steps: one change for each later stage.
        whole: the change from the first stage to the last.
    """

    first: str
    start: Estimate
    steps: tuple[StageChange, ...]
    whole: PairedComparison

    @property
    def losses(self) -> tuple[StageChange, ...]:
        """Steps that lose accuracy beyond chance (adjusted p < 0.05), the largest loss first."""
        found = [step for step in self.steps if step.comparison.difference < 0 and step.adjusted_p < LEVEL]
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
        """One sentence that says where accuracy is lost."""
        if self.losses:
            return "accuracy is lost " + " and ".join(
                f"from {step.before} to {step.after} ({100 * step.comparison.difference:+.1f} points)"
                for step in self.losses
            )
        worst = max(step.comparison.detectable for step in self.steps)
        return f"no step loses accuracy beyond chance (detectable: {100 * worst:.1f} points)"


def compare_stages(stages: Mapping[str, Report], *, grader: str | None = None) -> StageComparison:
    """Compare each stage with the previous one on the same records.

        print(compare_stages({"adapter": adapter, "merged": merged, "imported": imported}))

    Args:
        stages: stage name -> report, in the order of the pipeline.
        grader: the grader whose verdicts count. The default is the first grader of the first report.

    Raises:
        JudgingError: there are fewer than two stages, or they have different records or graders.
    """
    if len(stages) < 2:
        raise JudgingError(
            f"stages is {list(stages)}, but compare_stages needs at least two. Pass stage name -> report."
        )
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
    """Count the records with a different SQL text but the same verdict."""
    verdicts = zip(before.verdicts_by(grader), after.verdicts_by(grader), strict=True)
    return sum(
        one == other and old.sql.split() != new.sql.split()
        for (one, other), old, new in zip(verdicts, before.entries, after.entries, strict=True)
    )
