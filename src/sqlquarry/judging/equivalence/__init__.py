"""Equivalence of two queries, without a database: proved, refuted by made rows, or unknown."""

from sqlquarry.judging.equivalence.grader import EquivalenceGrader

__all__ = ["EquivalenceGrader"]
