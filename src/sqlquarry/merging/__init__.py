"""Adapter -> full model: the low-rank updates added to the weights they were trained on, some rows at a time."""

from sqlquarry.merging.merger import AdapterMerger
from sqlquarry.merging.verify import Agreement, Thresholds, Verification

__all__ = ["AdapterMerger", "Agreement", "Thresholds", "Verification"]
