"""Merge adapters into full models: low-rank updates are added to the weights they were trained on, row by row."""

from sqlquarry.merging.merger import AdapterMerger
from sqlquarry.merging.verification.results import AdapterAgreement, Thresholds, Verification

__all__ = ["AdapterAgreement", "AdapterMerger", "Thresholds", "Verification"]
