"""Test how the base is found, and how early a wrong base is noticed."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from merging_fakes import UP, Q, base_tensors, write_adapter, write_base
from sqlquarry import AdapterCheckpoint, AdapterMerger, MergedModel
from sqlquarry.errors import MergeError, UnsupportedModelError
from sqlquarry.manifests import Manifest
from sqlquarry.merging.four_bit import differing_offset
from sqlquarry.merging.output import MergeOutput
from sqlquarry.merging.tensor_file import StoredTensor, TensorFile
from sqlquarry.quantization import QuantizationRecipe


def recipe_for(tensors: dict[str, torch.Tensor]) -> QuantizationRecipe:
    """Return a recipe with the mean of every module's block scales, as `QuantizationRecipe.completed` records it."""
    means = {name: tensors[f"{name}.weight"].float().view(-1, 64).abs().amax(dim=1).mean() for name in (UP, Q)}
    return QuantizationRecipe(modules=tuple(means), offsets=tuple(mean.item() for mean in means.values()))


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return write_base(tmp_path / "base")


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> AdapterCheckpoint:
    return write_adapter(tmp_path / "adapter", base, recipe=recipe_for(base_tensors()))


@pytest.mark.parametrize("kind", ["auto", "original"])
def test_other_weights_of_the_same_shapes_are_refused_before_anything_is_written(
    tmp_path: Path, adapter: AdapterCheckpoint, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = base_tensors()
    tensors[f"{Q}.weight"] = tensors[f"{Q}.weight"] * 1.01
    other = write_base(tmp_path / "other", tensors)
    monkeypatch.setattr(MergeOutput, "remaining", lambda *_: pytest.fail("the work began"))
    with pytest.raises(MergeError, match=rf"{re.escape(str(other))} .*\b{Q} .*base_model="):
        AdapterMerger(base=kind, base_model=other).merge(adapter, tmp_path / "out")  # type: ignore[arg-type] - a literal
    assert not (tmp_path / "out").exists()


def test_verify_refuses_another_base(tmp_path: Path, adapter: AdapterCheckpoint) -> None:
    merged = AdapterMerger().merge(adapter, tmp_path / "out")
    other = write_base(tmp_path / "other", {name: tensor * 2 for name, tensor in base_tensors().items()})
    with pytest.raises(MergeError, match=rf"{re.escape(str(other))} .*\b(?:{Q}|{UP}) "):
        AdapterMerger(base_model=other).verify([], adapter, merged)


def stored(path: Path, tensors: dict[str, torch.Tensor]) -> dict[str, StoredTensor]:
    save_file(tensors, path)
    return {tensor.name: tensor for tensor in TensorFile.open(path).tensors}


@given(order=st.randoms())
def test_another_order_of_summation_is_not_taken_for_another_base(
    tmp_path_factory: pytest.TempPathFactory, order: object
) -> None:
    tensors = base_tensors()
    means = []
    for name in (UP, Q):
        scales = tensors[f"{name}.weight"].float().view(-1, 64).abs().amax(dim=1).tolist()
        order.shuffle(scales)  # type: ignore[attr-defined] - hypothesis' own random.Random
        total = torch.tensor(0.0)
        for scale in scales:
            total += scale
        means.append((total / len(scales)).item())
    recipe = QuantizationRecipe(modules=(UP, Q), offsets=tuple(means))
    assert differing_offset(stored(tmp_path_factory.mktemp("base") / "base.safetensors", tensors), recipe) is None


def test_without_recorded_scales_nothing_is_compared(base: Path) -> None:
    tensors = {tensor.name: tensor for tensor in TensorFile.open(base / "model.safetensors").tensors}
    assert differing_offset(tensors, QuantizationRecipe(modules=(Q,))) is None


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty hub cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


def put_into_cache(hub: Path, base: Path, model_id: str) -> None:
    """Copy a base into a cache in huggingface_hub's layout: a ref names a snapshot, whose files link to blobs."""
    folder = hub / f"models--{model_id.replace('/', '--')}"
    revision = "0" * 40
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text(revision)
    shutil.copytree(base, folder / "blobs")
    snapshot = folder / "snapshots" / revision
    snapshot.mkdir(parents=True)
    for blob in (folder / "blobs").iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")


def test_a_base_in_the_hub_cache_is_named_by_its_id(
    tmp_path: Path, base: Path, adapter: AdapterCheckpoint, hub: Path
) -> None:
    expected = AdapterMerger().merge(adapter, tmp_path / "expected")
    put_into_cache(hub, base, "org/model-1.5")
    merged = AdapterMerger(base_model="org/model-1.5").merge(adapter, tmp_path / "out")
    assert merged.manifest.digest == expected.manifest.digest


def test_an_adapter_from_another_machine_finds_its_base_by_the_recorded_id(
    tmp_path: Path, base: Path, adapter: AdapterCheckpoint, hub: Path
) -> None:
    expected = AdapterMerger().merge(adapter, tmp_path / "expected")
    put_into_cache(hub, base, "some/base")
    shutil.rmtree(base)
    assert AdapterMerger().merge(adapter, tmp_path / "out").manifest.digest == expected.manifest.digest


@pytest.mark.parametrize("model_id", ["org/absent", "org/-not..valid-"])
def test_the_error_for_an_uncached_id_contains_the_download_command(
    tmp_path: Path, adapter: AdapterCheckpoint, hub: Path, model_id: str
) -> None:
    with pytest.raises(MergeError, match=rf"hf download {re.escape(model_id)}\W.*base_model="):
        AdapterMerger(base_model=model_id).merge(adapter, tmp_path / "out")
    assert not hub.exists()


def test_a_directory_wins_over_an_id(tmp_path: Path, base: Path, adapter: AdapterCheckpoint, hub: Path) -> None:
    expected = AdapterMerger().merge(adapter, tmp_path / "expected")
    put_into_cache(hub, write_base(tmp_path / "other", {"other": torch.ones(1)}), "parent/model")
    (tmp_path / "parent").mkdir()
    base.rename(tmp_path / "parent/model")
    merged = AdapterMerger(base_model="parent/model").merge(adapter, tmp_path / "out")
    assert merged.manifest.digest == expected.manifest.digest


@pytest.mark.parametrize(
    ("location", "uri"),
    [
        ("s3://bucket/a/b", "s3://bucket/a/b"),
        ("s3://bucket", "s3://bucket"),
        ("runs/merged", "runs/merged"),
        ("/s3:/merged", "/s3:/merged"),
    ],
)
def test_the_uri_of_a_merged_model_is_its_location(location: str, uri: str) -> None:
    assert MergedModel(Path(location), Manifest(MergedModel.kind, {}, {})).uri == uri


@pytest.mark.parametrize("content", [b"", b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"])
@pytest.mark.parametrize("name", ["tokenizer.json", "chat_template.jinja"])
def test_a_base_whose_tokenizer_was_not_downloaded_is_refused(
    tmp_path: Path, base: Path, adapter: AdapterCheckpoint, name: str, content: bytes
) -> None:
    (base / name).write_bytes(content)
    with pytest.raises(UnsupportedModelError, match=re.escape(name)):
        AdapterMerger().merge(adapter, tmp_path / "out")
    assert not (tmp_path / "out").exists()
