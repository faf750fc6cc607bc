"""Test the files that a merge writes: dtypes, several adapters, full disks and killed processes."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from merging_fakes import UP, Q, base_tensors, lora_tensors, write_adapter, write_base
from sqlquarry import AdapterMerger, MergedModel, PromptFormatter
from sqlquarry.errors import MergeError, PromptMismatchError
from sqlquarry.manifests import write_manifest
from sqlquarry.merging import Thresholds
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.storage.protocols import Sink
from sqlquarry.provenance import MergedAdapter
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
    assert MergedModel.load(merged.path, verify=True).merge.dtype == dtype


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({"dtype": "bfloat16"}, {"dtype": "float16"}),
        ({"dtype": "bfloat16", "torch_dtype": "bfloat16"}, {"dtype": "float16", "torch_dtype": "float16"}),
        ({}, {"torch_dtype": "float16"}),
    ],
)
def test_the_config_gets_the_new_dtype_under_the_keys_that_it_had(
    tmp_path: Path, before: dict[str, Any], after: dict[str, Any]
) -> None:
    base = write_base(tmp_path / "base", config=before)
    merged = AdapterMerger(dtype="float16").merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    assert json.loads((merged.path / "config.json").read_text()) == {"tie_word_embeddings": False} | after


def test_all_files_that_a_server_needs_are_copied_and_no_others(base: Path, tmp_path: Path) -> None:
    copied = ("generation_config.json", "tokenizer.model", "tokenizer_config.json", "special_tokens_map.json",
              "added_tokens.json", "vocab.json", "merges.txt", "chat_template.jinja", "preprocessor_config.json",
              "processor_config.json", "LICENSE", "NOTICE.md")  # fmt: skip
    for name in (*copied, "README.md", "original.pth", "optimizer.pt"):
        (base / name).write_text(json.dumps({"name": name}))
    merged = AdapterMerger().merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    added = {"config.json", "LICENSE.txt", "tokenizer.json", "model.safetensors", "prompt.json"}
    assert set(merged.manifest.files) == {*copied, *added}
    for name in copied:
        assert (merged.path / name).read_bytes() == (base / name).read_bytes()


@pytest.mark.parametrize("block_bytes", [8 * 2**20, 1])
def test_the_recorded_updates_are_those_of_the_written_tensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, block_bytes: int
) -> None:
    monkeypatch.setattr("sqlquarry.merging.merged_tensors._BLOCK_BYTES", block_bytes)
    torch.manual_seed(0)
    tensors = base_tensors() | {f"{UP}.weight": torch.randn(300, 64)}  # several blocks of at least 64 rows
    adapter = {f"base_model.model.{UP}.lora_{name}": torch.randn(shape) * 0.3 for name, shape in (
        ("A.weight", (4, 64)), ("B.weight", (300, 4)), ("magnitude_vector", (300,)))}  # fmt: skip
    adapter["base_model.model.lm_head.weight"] = torch.randn(50, 64)
    adapter["base_model.model.model.embed_tokens.token_adapter.trainable_tokens_delta"] = torch.randn(2, 64)
    base = write_base(tmp_path / "base", tensors)
    trained = write_adapter(tmp_path / "adapter", base, adapter, use_dora=True, trainable_token_indices=[3, 49])
    merged = AdapterMerger(dtype="float32").merge(trained, tmp_path / "out")
    written = load_file(merged.path / "model.safetensors")
    expected = {
        name: float((written[name] - tensors[name].float()).norm() / tensors[name].float().norm())
        for name in (f"{UP}.weight", "model.embed_tokens.weight")
    }
    found = dict(merged.merge.relative_updates)
    assert found.pop("lm_head.weight") is None  # replaced
    assert found == pytest.approx(expected, rel=1e-5)
    assert merged.merge.mean_relative_update == pytest.approx(sum(expected.values()) / 2, rel=1e-5)
    assert merged.merge.merged_tensors == 3


def test_another_dtype_gets_a_new_index(tmp_path: Path) -> None:
    tensors = base_tensors()
    base = write_base(tmp_path / "base", {"model.norm.weight": tensors.pop("model.norm.weight")}, tensors)
    merged = AdapterMerger(dtype="float32").merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    index = json.loads((merged.path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == 2 * sum(tensor.nbytes for tensor in base_tensors().values())
    assert index["weight_map"] == json.loads((base / "model.safetensors.index.json").read_text())["weight_map"]


def test_tensors_that_fill_a_shard_exactly_share_it(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", base_tensors())
    adapter = write_adapter(tmp_path / "adapter", base)
    sizes = [tensor.nbytes for _, tensor in sorted(load_file(base / "model.safetensors").items())]
    first_two = sum(sizes[:2])
    full, short = (
        AdapterMerger(max_shard_bytes=limit).merge(adapter, tmp_path / str(limit))
        for limit in (first_two, first_two - 1)
    )
    shards = [min(model.path.glob("*.safetensors")) for model in (full, short)]
    assert [len(load_file(shard)) for shard in shards] == [2, 1]


def test_shards_that_are_written_again_keep_the_metadata_of_the_base(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", base_tensors())
    metadata = {"format": "pt", "source": "a training run"}
    save_file(load_file(base / "model.safetensors"), base / "model.safetensors", metadata=metadata)
    merged = AdapterMerger(dtype="float32").merge(write_adapter(tmp_path / "adapter", base), tmp_path / "out")
    with safe_open(next(merged.path.glob("*.safetensors")), "pt") as file:
        assert file.metadata() == metadata


def test_values_beyond_float16_are_refused(tmp_path: Path) -> None:
    base = write_base(tmp_path / "base", base_tensors() | {"lm_head.weight": torch.full((50, 64), 1e6).bfloat16()})
    adapter = write_adapter(tmp_path / "adapter", base)
    with pytest.raises(MergeError, match=r"lm_head\.weight .*\bF16\b.*dtype='bfloat16'"):
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
    assert merged.merge.adapters == (
        MergedAdapter(one.manifest.digest, 0.25),
        MergedAdapter(two.manifest.digest, -1.5),
    )
    with pytest.raises(MergeError, match="adapter_digest"):
        AdapterMerger(dtype="float32").merge([(one, 0.5), (two, -1.5)], tmp_path / "out")
    assert AdapterMerger(dtype="float32").merge([(one, 0.25), (two, -1.5)], tmp_path / "out") == merged


def test_adapters_of_two_bases_or_prompts_are_not_mixed(base: Path, tmp_path: Path) -> None:
    one = write_adapter(tmp_path / "one", base)
    other_base = write_base(tmp_path / "other", base_tensors() | {"model.norm.weight": torch.ones(64)})
    two = write_adapter(tmp_path / "two", other_base)
    with pytest.raises(MergeError, match=re.escape(str(two.path))):
        AdapterMerger().merge([(one, 1.0), (two, 1.0)], tmp_path / "out")
    quantized = write_adapter(tmp_path / "three", base, recipe=QuantizationRecipe(modules=(Q,)))
    with pytest.raises(MergeError, match=re.escape(str(quantized.path))):
        AdapterMerger().merge([(one, 1.0), (quantized, 1.0)], tmp_path / "out")
    four = write_adapter(tmp_path / "four", base)
    formatter = PromptFormatter(user="Say it in SQL: {question}")
    formatter.save(four.path)
    write_manifest(four.path, four.kind, {**four.manifest.provenance, "prompt_fingerprint": formatter.fingerprint})
    with pytest.raises(PromptMismatchError, match=rf"{formatter.fingerprint}.*{PromptFormatter().fingerprint}"):
        AdapterMerger().merge([(one, 1.0), (four, 1.0)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("writes", [0, 1, 3, 6])
def test_a_merge_that_filled_the_disk_can_be_finished_by_a_second_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    tensors = base_tensors()
    base = write_base(
        tmp_path / "base", {name: tensors.pop(name) for name in (f"{Q}.weight", "lm_head.weight")}, tensors
    )
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    stock, seen = LocalDirectory.create, []

    @contextmanager
    def create(self: LocalDirectory, name: str, nbytes: int) -> Iterator[Sink]:
        with stock(self, name, nbytes) as sink:

            def write(data: memoryview) -> None:
                seen.append(data)
                if len(seen) > writes:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                sink.write(data)

            yield SimpleNamespace(write=write)

    with monkeypatch.context() as patch:
        patch.setattr(LocalDirectory, "create", create)
        with pytest.raises(MergeError, match=r"/out/model-0000\d-of-00002\.safetensors.* No space left on device"):
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


def test_a_run_after_a_killed_one_writes_the_same_bytes(tmp_path: Path) -> None:
    tensors = base_tensors()
    base = write_base(
        tmp_path / "base", {name: tensors.pop(name) for name in (f"{Q}.weight", "lm_head.weight")}, tensors
    )
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    # Each tensor has one block of rows. The small files are the state (written three times), five files that are
    # carried over, the index and the manifest.
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


def test_temporary_files_of_a_killed_writer_are_removed(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "adapter", base)
    whole = AdapterMerger().merge(adapter, tmp_path / "whole")
    for name in (".manifest.json.4711.tmp", "..merge.json.4711.tmp", ".model.safetensors.tmp"):
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"cut off")
    merged = AdapterMerger().merge(adapter, tmp_path / "out")
    assert contents(merged.path) == contents(whole.path)


def test_the_published_recipe_has_the_options_of_the_notebook() -> None:
    assert AdapterMerger.published() == AdapterMerger(base="original", dtype="float16", max_shard_bytes=2_000_000_000)
    own = AdapterMerger.published(base_model="s3://bucket/base", thresholds=Thresholds())
    assert (own.base_model, own.thresholds, own.dtype) == ("s3://bucket/base", Thresholds(), "float16")
    with pytest.raises(TypeError, match="base"):
        AdapterMerger.published(base="auto")  # type: ignore[call-arg] - it would no longer be the recipe
