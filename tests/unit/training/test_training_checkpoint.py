"""Checkpoint files: whole or passed over, pruned, and an error where they cannot be written."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
import torch

from sqlquarry.errors import TrainingError
from sqlquarry.training.steps.checkpoint import Checkpoints, Snapshot


def snapshot(step: int) -> Snapshot:
    return Snapshot(step, {"adapter.a": torch.full((3, 2), float(step))}, {"loss_sum": "1.5"})


def saved(place: Path, *steps: int, kept: int = 2) -> Checkpoints:
    checkpoints = Checkpoints(place, kept=kept)
    for step in steps:
        checkpoints.save(snapshot(step))
    checkpoints.wait()
    return checkpoints


def test_the_newest_comes_back_and_older_ones_are_pruned(tmp_path: Path) -> None:
    checkpoints = saved(tmp_path / "c", 1, 2, 30, kept=2)
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.step, latest.facts) == (30, {"loss_sum": "1.5"})
    assert torch.equal(latest.tensors["adapter.a"], torch.full((3, 2), 30.0))
    assert len(list((tmp_path / "c").iterdir())) == 2
    checkpoints.clear()
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_checkpoint_is_passed_over_and_said(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    checkpoints = saved(tmp_path, 1, 2)
    newest = max(tmp_path.iterdir())
    content = newest.read_bytes()
    newest.write_bytes({"cut": content[:-1], "changed": content[:-1] + b"x", "empty": b""}[damage])
    with caplog.at_level(logging.WARNING):
        latest = checkpoints.latest()
    assert latest is not None
    assert latest.step == 1
    assert newest.name in caplog.text


def test_what_a_killed_writer_left_is_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "tmpx").mkdir()
    (tmp_path / "tmpx" / "new.safetensors").write_bytes(b"half")
    (tmp_path / "notes.txt").write_text("mine")
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    checkpoints.clear()
    assert (tmp_path / "notes.txt").exists()


def test_a_full_disk_is_an_error_that_names_the_last_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import safetensors.torch

    checkpoints = saved(tmp_path, 7)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(safetensors.torch, "save_file", full)
    checkpoints.save(snapshot(8))
    with pytest.raises(TrainingError, match=r"No space left on device.*after step 7 is whole"):
        checkpoints.wait()
    monkeypatch.undo()
    checkpoints.save(snapshot(9))
    checkpoints.wait()
    assert len(list(tmp_path.iterdir())) == 2
