"""Merge adapters into full models by adding their low-rank updates to the weights that they were trained on."""

from sqlquarry.merging.merger import AdapterMerger
from sqlquarry.merging.verification.results import Thresholds, require_thresholds
from sqlquarry.provenance import AdapterAgreement, Verification

__all__ = ["AdapterAgreement", "AdapterMerger", "Thresholds", "Verification", "require_thresholds"]
