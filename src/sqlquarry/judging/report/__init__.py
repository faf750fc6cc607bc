"""What came out of judging: verdicts by record, accuracies with error bars, and the files that show them."""

from sqlquarry.judging.report.data import Entry, Report

__all__ = ["Entry", "Report"]
