"""Adapter -> full model: the low-rank updates added to the weights they were trained on, one tensor at a time."""

from sqlquarry.merging.merger import AdapterMerger

__all__ = ["AdapterMerger"]
