"""Merge adapters into full models: low-rank updates are added to the weights they were trained on, row by row."""

from sqlquarry.merging.merger import AdapterMerger
from sqlquarry.merging.verification.results import Thresholds, require_thresholds
from sqlquarry.provenance import AdapterAgreement, Verification

__all__ = ["AdapterAgreement", "AdapterMerger", "Thresholds", "Verification", "require_thresholds"]
