"""Equivalence of queries without running them: equivalent, different, or unknown."""

from sqlquarry.judging.equivalence.grader import EquivalenceGrader

__all__ = ["EquivalenceGrader"]
