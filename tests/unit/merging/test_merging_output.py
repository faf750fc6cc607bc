"""What a merge writes and how: dtypes, several adapters, and disks that fill up and processes that die."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from merging_fakes import UP, Q, base_tensors, lora_tensors, write_adapter, write_base
from sqlquarry import AdapterMerger, MergedModel, PromptFormatter
from sqlquarry.errors import MergeError, PromptMismatchError
from sqlquarry.manifests import write_manifest
from sqlquarry.merging.storage.local import _WholeWrites
from sqlquarry.quantization import QuantizationRecipe


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base", config={"torch_dtype": "bfloat16"})


def contents(directory: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in directory.iterdir()}


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("recipe", [None, QuantizationRecipe(modules=(Q,), storage_dtype="uint8", quant_type="fp4")])
def test_every_tensor_gets_the_dtype_after_one_rounding(
    base: Path, tmp_path: Path, dtype: str, recipe: QuantizationRecipe | None
) -> None:
    adapter = write_adapter(tmp_path / "adapter", base, recipe=recipe)
    merged = AdapterMerger(dtype=dtype).merge(adapter, tmp_path / "out")  # type: ignore[arg-type] - one of the three
    result, before, lora, wanted = (
        load_file(merged.path / "model.safetensors"), base_tensors(), lora_tensors(), getattr(torch, dtype)
    )  # fmt: skip
    assert {tensor.dtype for tensor in result.values()} == {wanted}
    for name, tensor in before.items():
        module = name.removesuffix(".weight")
        expected = recipe.round_trip(tensor).float() if recipe and module in recipe.modules else tensor.float()
        if module in (Q, UP):
            a, b = (lora[f"base_model.model.{module}.lora_{x}.weight"] for x in "AB")
            expected = expected + (b @ a) * 2.0
        assert torch.equal(result[name], expected.to(wanted))
    config = json.loads((merged.path / "config.json").read_text())
    assert config == {"tie_word_embeddings": False, "torch_dtype": dtype}
    if dtype == "bfloat16":
        assert (merged.path / "config.json").read_bytes() == (base / "config.json").read_bytes()
    assert MergedModel.load(merged.path, verify=True).manifest.provenance["merge"]["dtype"] == dtype


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"dtype": "bfloat16"}, {"dtype": "float16"}),
        ({"dtype": "bfloat16", "torch_dtype": "bfloat16"}, {"dtype": "float16", "torch_dtype": "float16"}),
        ({}, {"torch_dtype": "float16"}),
    ],
)
def test_the_config_names_the_dtype_where_it_did_before(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    base = write_base(tmp_path / "base", config=before)
    merged = AdapterMerger(dtype="float16").merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    assert json.loads((merged.path / "config.json").read_text()) == {"tie_word_embeddings": False} | after


def test_another_dtype_gets_an_index_of_its_own(tmp_path: Path) -> None:
    tensors = base_tensors()
    base = write_base(tmp_path / "base", {"model.norm.weight": tensors.pop("model.norm.weight")}, tensors)
    merged = AdapterMerger(dtype="float32").merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    index = json.loads((merged.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * sum(tensor.nbytes for tensor in base_tensors().values())
    assert index["weight_map"] == json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", base_tensors() | {"lm_head.weight": torch.full((50, 64), 1e6).bfloat16()})
    adapter = write_adapter(tmp_path / "adapter", base)
    with pytest.raises(MergeError, match=r"lm_head\.weight gives NaN or infinity in F16: .*dtype='bfloat16'"):
        AdapterMerger(dtype="float16").merge(adapter, tmp_path / "out")


def test_several_adapters_add_up_with_their_weights(base: Path, tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one", base)
    two = write_adapter(tmp_path / "two", base, lora_tensors(rank=2, seed=5), r=2)
    merged = AdapterMerger(dtype="float32").merge([(one, 0.25), (two, -1.5)], tmp_path / "out")
    name = f"{Q}.weight"
    expected = base_tensors()[name].float()
    for tensors, scale in ((lora_tensors(), 0.25 * 2), (lora_tensors(rank=2, seed=5), -1.5 * 4)):
        a, b = (tensors[f"base_model.model.{Q}.lora_{x}.weight"] for x in "AB")
        expected = expected + b @ a * scale
    torch.testing.assert_close(load_file(merged.path / "model.safetensors")[name], expected, atol=1e-6, rtol=1e-6)
    merge = merged.manifest.provenance["merge"]
    assert merge["adapters"] == [
        {"digest": one.manifest.digest, "weight": 0.25},
        {"digest": two.manifest.digest, "weight": -1.5},
    ]
    with pytest.raises(MergeError, match="adapter_digest"):
        AdapterMerger(dtype="float32").merge([(one, 0.5), (two, -1.5)], tmp_path / "out")
    assert AdapterMerger(dtype="float32").merge([(one, 0.25), (two, -1.5)], tmp_path / "out") == merged


def test_adapters_of_two_bases_or_prompts_are_not_mixed(base: Path, tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one", base)
    other_base = write_base(tmp_path / "other", base_tensors() | {"model.norm.weight": torch.ones(64)})
    with pytest.raises(MergeError, match="another base"):
        AdapterMerger().merge([(one, 1.0), (write_adapter(tmp_path / "two", other_base), 1.0)], tmp_path / "out")
    quantised = write_adapter(tmp_path / "three", base, recipe=QuantizationRecipe(modules=(Q,)))
    with pytest.raises(MergeError, match="quantized in another way"):
        AdapterMerger().merge([(one, 1.0), (quantised, 1.0)], tmp_path / "out")
    four = write_adapter(tmp_path / "four", base)
    formatter = PromptFormatter(user="Say it in SQL: {question}")
    formatter.save(four.path)
    write_manifest(four.path, four.kind, {**four.manifest.provenance, "prompt_fingerprint": formatter.fingerprint})
    with pytest.raises(PromptMismatchError, match="a merged model has one"):
        AdapterMerger().merge([(one, 1.0), (four, 1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("writes", [0, 1, 3, 6])
def test_a_disk_that_fills_up_leaves_what_a_second_run_finishes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    tensors = base_tensors()
    base = write_base(
        tmp_path / "base", {name: tensors.pop(name) for name in (f"{Q}.weight", "lm_head.weight")}, tensors
    )
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    stock, seen = _WholeWrites.write, []

    def full(self: _WholeWrites, data: memoryview) -> None:
        seen.append(data)
        if len(seen) > writes:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        stock(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(_WholeWrites, "write", full)
        with pytest.raises(MergeError, match=r"writing .*model-.* failed: No space left.* Run the same merge again"):
            AdapterMerger().merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out/manifest.json").exists()
    assert not list((tmp_path / "out").glob("*.tmp")) + list((tmp_path / "out").glob(".*.tmp"))
    again = AdapterMerger().merge(adapter, tmp_path / "out")
    assert contents(again.path) == contents(whole.path)


_KILLED = """
import itertools, os, signal, sys
from sqlquarry import AdapterCheckpoint, AdapterMerger
from sqlquarry.merging.output import MergeOutput
from sqlquarry.merging.merged_tensors import MergedTensor
from sqlquarry.merging.storage.local import LocalDirectory
owner, name = {"rows": (MergedTensor, "merge_rows"), "state": (LocalDirectory, "write")}[sys.argv[3]]
stock, calls = getattr(owner, name), itertools.count()  # its next() is one step for all threads
def dies(*args):
    if next(calls) >= int(sys.argv[4]):
        os.kill(os.getpid(), signal.SIGKILL)
    return stock(*args)
setattr(owner, name, dies)
AdapterMerger().merge(AdapterCheckpoint.load(sys.argv[1]), sys.argv[2])
"""


def test_a_process_killed_anywhere_is_followed_by_the_same_bytes(tmp_path: Path) -> None:
    tensors = base_tensors()
    base = write_base(
        tmp_path / "base", {name: tensors.pop(name) for name in (f"{Q}.weight", "lm_head.weight")}, tensors
    )
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    # One block of rows per tensor; files written whole: the state three times, five carried over, index and manifest.
    cases = [("rows", 4), ("state", 2), ("state", 8)]
    command = [sys.executable, "-c", _KILLED, str(adapter.path)]
    children = [
        subprocess.Popen([*command, str(tmp_path / f"{what}{count}"), what, str(count)]) for what, count in cases
    ]
    assert [child.wait() for child in children] == [-signal.SIGKILL] * len(cases)
    for what, count in cases:
        out = tmp_path / f"{what}{count}"
        assert not (out / "manifest.json").exists()
        AdapterMerger().merge(adapter, out)
        assert contents(out) == contents(whole.path), (what, count)


def test_what_a_killed_writer_left_aside_is_removed(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    for name in (".manifest.json.4711.tmp", "..merge.json.4711.tmp", ".model.safetensors.tmp"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"cut off")
    merged = AdapterMerger().merge(adapter, tmp_path / "out")
    assert contents(merged.path) == contents(whole.path)
