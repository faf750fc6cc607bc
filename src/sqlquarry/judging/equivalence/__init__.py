"""Decides whether two queries are equivalent without the record's database: by proof or by a counterexample."""

from sqlquarry.judging.equivalence.grader import EquivalenceGrader

__all__ = ["EquivalenceGrader"]
