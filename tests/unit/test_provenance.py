"""Parts of the provenance are read into typed objects, and refused if a field is missing or has a wrong type."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.errors import CorruptArtifactError
from sqlquarry.manifests import Manifest
from sqlquarry.provenance import (
    AdapterAgreement,
    MergedAdapter,
    MergeSummary,
    TrainingRun,
    Verification,
    read_part,
)

RUN = TrainingRun(
    records=20,
    rows=3,
    tokens_per_epoch=100,
    tokens_unshared=200,
    steps=4,
    learning_rate=1e-3,
    training_loss=float("nan"),  # a run that diverged
    duration_s=1.5,
    tokens_per_second=66.7,
    device="cpu",
    processes=1,
    shard_group_size=1,
    trained_rows=(7, 9),
    peak_memory_bytes=None,
)
AGREEMENT = AdapterAgreement(1e-4, 1.0, -0.5, -0.5, 40, 8)
MERGE = MergeSummary(
    base="dequantized",
    adapter_digest="0" * 64,
    merged_tensors=2,
    mean_relative_update=0.1,
    relative_updates={"a": 0.1, "b": None},
    adapters=(MergedAdapter("0" * 64, 0.5),),
    candidates={"original": AGREEMENT},
    verification=Verification(AGREEMENT, 1.0, 0.1, 2),
)


@pytest.mark.parametrize("part", [RUN, MERGE], ids=lambda part: type(part).__name__)
def test_parts_are_read_as_they_were_written(part: TrainingRun | MergeSummary) -> None:
    stored = json.loads(json.dumps(dataclasses.asdict(part)))
    assert repr(read_part(type(part), stored)) == repr(part)
    assert repr(read_part(type(part), stored | {"of_a_later_version": 1})) == repr(part)


def test_optional_fields_have_their_defaults() -> None:
    required = ("base", "adapter_digest", "merged_tensors", "mean_relative_update", "relative_updates")
    stored = {name: dataclasses.asdict(MERGE)[name] for name in required}
    assert read_part(MergeSummary, stored).verification is None
    assert read_part(MergeSummary, stored).candidates == {}


@pytest.mark.parametrize(
    "change",
    [
        {"steps": "4"},
        {"steps": True},
        {"steps": 4.5},
        {"steps": None},
        {"training_loss": "low"},
        {"trained_rows": 7},
        {"trained_rows": ["7"]},
        {"device": 0},
        {"peak_memory_bytes": "1 GiB"},
    ],
    ids=str,
)
def test_the_error_contains_the_field_with_a_wrong_type(change: dict[str, object]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=name):
        read_part(TrainingRun, json.loads(json.dumps(dataclasses.asdict(RUN))) | change)


@pytest.mark.parametrize(
    "change",
    [{"base": "other"}, {"verification": {"coverage": 1.0}}, {"candidates": {"original": 1}}, {"relative_updates": []}],
    ids=str,
)
def test_nested_values_are_checked_as_strictly(change: dict[str, object]) -> None:
    (name,) = change
    with pytest.raises(ValueError, match=name):
        read_part(MergeSummary, dataclasses.asdict(MERGE) | {"adapters": []} | change)


def test_an_artifact_without_a_valid_part_is_refused(tmp_path: Path) -> None:
    adapter = AdapterCheckpoint(tmp_path, Manifest("adapter", {}, {"run": {"steps": 4}}))
    with pytest.raises(CorruptArtifactError):
        _ = adapter.run
    with pytest.raises(CorruptArtifactError):
        _ = MergedModel(tmp_path, Manifest("merged-model", {}, {})).merge
    stored = json.loads(json.dumps(dataclasses.asdict(RUN)))
    assert AdapterCheckpoint(tmp_path, Manifest("adapter", {}, {"run": stored})).run.trained_rows == (7, 9)
