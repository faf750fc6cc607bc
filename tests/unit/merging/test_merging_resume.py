"""Test what a merge does if its output already has files: finished merges, interrupted ones, and foreign files."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from merging_fakes import Q, base_tensors, lora_tensors, write_adapter, write_base
from sqlquarry import AdapterMerger
from sqlquarry.errors import MergeError
from sqlquarry.merging.tensor_file import StoredTensor
from sqlquarry.merging.update import Update


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


def contents(directory: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in directory.iterdir()}


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-8])


def test_a_full_disk_is_seen_before_writing(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: SimpleNamespace(free=1000))
    with pytest.raises(MergeError, match=r"/new/out .*\b0\.00 GB"):
        AdapterMerger().merge(adapter, tmp_path / "new/out")
    assert not (tmp_path / "new").exists()


def test_a_finished_merge_is_returned_and_never_overwritten(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    first = AdapterMerger().merge(adapter, tmp_path / "out")
    before = contents(first.path)
    with monkeypatch.context() as patch:
        patch.setattr(StoredTensor, "read_into", lambda *_: pytest.fail("merged again"))
        assert AdapterMerger().merge(adapter, tmp_path / "out") == first
    other = write_adapter(tmp_path / "other", base, lora_tensors(seed=5))
    digests = rf"adapter_digest .*{adapter.manifest.digest}.*{other.manifest.digest}"
    with pytest.raises(MergeError, match=rf"/out .*\({digests}"):
        AdapterMerger().merge(other, tmp_path / "out")
    damage(tmp_path / "out/model.safetensors")
    with pytest.raises(MergeError, match=r"/out .*manifest\.json"):
        AdapterMerger().merge(adapter, tmp_path / "out")
    with pytest.raises(MergeError, match=r"/adapter .*manifest\.json"):
        AdapterMerger().merge(adapter, adapter.path)
    assert {k: v for k, v in contents(first.path).items() if k != "model.safetensors"} == {
        k: v for k, v in before.items() if k != "model.safetensors"
    }


def test_foreign_files_are_left_alone(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    files = ", ".join(sorted(path.name for path in base.iterdir()))
    with pytest.raises(MergeError, match=re.escape(f"{base} ") + rf".*{re.escape(f'({files})')}"):
        AdapterMerger().merge(adapter, base)
    with pytest.raises(MergeError, match=re.escape(f"{base}/config.json ")):
        AdapterMerger().merge(adapter, base / "config.json")


@pytest.mark.parametrize("calls", [0, 1])
def test_an_interrupted_merge_resumes_and_gives_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, calls: int
) -> None:
    tensors = base_tensors()
    first = {name: tensors.pop(name) for name in (f"{Q}.weight", "lm_head.weight")}
    base = write_base(tmp_path / "base", first, tensors)
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    stock, seen = Update.apply_rows, []

    def dies(self: Update, *args: Any) -> Any:
        seen.append(self)
        if len(seen) > calls:
            raise KeyboardInterrupt
        return stock(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Update, "apply_rows", dies)
        with pytest.raises(KeyboardInterrupt):
            AdapterMerger().merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "out").glob(".*.tmp"))
    assert len(list((tmp_path / "out").glob("*.safetensors"))) == calls

    other = write_adapter(tmp_path / "other", base, lora_tensors(seed=5))
    digests = rf"adapter_digest .*{adapter.manifest.digest}.*{other.manifest.digest}"
    with pytest.raises(MergeError, match=rf"/out .*\({digests}"):
        AdapterMerger().merge(other, tmp_path / "out")

    seen.clear()
    monkeypatch.setattr(Update, "apply_rows", lambda self, *args: seen.append(self) or stock(self, *args))
    again = AdapterMerger().merge(adapter, tmp_path / "out")
    assert len(seen) == 2 - calls
    assert contents(again.path) == contents(whole.path)
