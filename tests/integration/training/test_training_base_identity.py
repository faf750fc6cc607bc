"""A base model is identified by its content, wherever it is."""

from __future__ import annotations

import shutil
from pathlib import Path

import huggingface_hub
import pytest
from safetensors.torch import load_file, save_file

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import MergeError, TrainingError, UnsupportedModelError
from sqlquarry.merging import AdapterMerger
from sqlquarry.models.local.model import LocalModel
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.training.steps import adapted_model

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(6)]
CONFIG = TrainingConfig(num_train_epochs=1, records_per_step=3, max_length=320, device="cpu", quantization=None)


@pytest.fixture(scope="module")
def place(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the base "b" and an adapter that was trained on it by its relative path."""
    folder = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny_llama, folder / "b")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        QLoRAFSDPTrainer("b", config=CONFIG).train(RECORDS, output_dir="adapter")
    return folder


@pytest.fixture
def adapter(place: Path) -> AdapterCheckpoint:
    return AdapterCheckpoint.load(place / "adapter")


def test_a_relative_base_is_recorded_with_its_absolute_path(place: Path, adapter: AdapterCheckpoint) -> None:
    base = str((place / "b").resolve())
    assert (adapter.base_model, str(adapter.base_model_path)) == (base, base)
    assert f'"base_model_name_or_path": "{base}"' in (adapter.path / "adapter_config.json").read_text()


def test_a_finished_adapter_is_found_with_any_path_of_its_base(
    place: Path, adapter: AdapterCheckpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapted_model, "load_causal_lm", lambda *_, **__: pytest.fail("trained again"))
    (tmp_path / "link").symlink_to(place / "b")
    moved = shutil.copytree(place / "b", tmp_path / "moved")
    monkeypatch.chdir(place)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *_, **__: str(moved))
    for base in ("b", "./b", "b/", place / "b", tmp_path / "link", moved, "org/tiny"):
        again = QLoRAFSDPTrainer(base, config=CONFIG).train(RECORDS, output_dir="adapter")
        assert again.manifest == adapter.manifest


def test_an_interrupted_run_resumes_on_a_base_that_was_moved(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(tiny_llama, tmp_path / "b")
    with monkeypatch.context() as patch:
        patch.setattr(
            "sqlquarry.training.local_run.write_manifest", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt)
        )
        with pytest.raises(KeyboardInterrupt):
            QLoRAFSDPTrainer(tmp_path / "b", config=CONFIG).train(RECORDS, output_dir=tmp_path / "run")
    moved = (tmp_path / "b").rename(tmp_path / "moved")
    run = QLoRAFSDPTrainer(moved, config=CONFIG).train(RECORDS, output_dir=tmp_path / "run")
    assert run.base_model_path == moved.resolve()


def test_differences_are_listed_with_both_values(place: Path) -> None:
    other = TrainingConfig(
        num_train_epochs=3, records_per_step=3, max_length=320, device="cpu", quantization=None, lora_r=4
    )
    with pytest.raises(TrainingError, match=r"config\.num_train_epochs \(.* 1, .* 3\), config\.lora_r \(.* 16, .* 4\)"):
        QLoRAFSDPTrainer(place / "b", config=other).train(RECORDS, output_dir=place / "adapter")


def changed(base: Path, directory: Path) -> Path:
    shutil.copytree(base, directory)
    tensors = load_file(directory / "model.safetensors")
    tensors["model.norm.weight"] *= 2
    save_file(tensors, directory / "model.safetensors", {"format": "pt"})
    return directory


def test_an_adapter_can_be_used_and_merged_with_a_base_that_was_moved(
    place: Path, adapter: AdapterCheckpoint, tmp_path: Path
) -> None:
    answers = LocalModel(adapter, device="cpu", max_tokens=4).generate(RECORDS[:2])
    moved = (place / "b").rename(place / "elsewhere")
    other = changed(moved, tmp_path / "other")
    try:
        with pytest.raises(UnsupportedModelError, match=rf"{place / 'b'}.*base_model="):
            LocalModel(adapter, device="cpu")
        with pytest.raises(MergeError, match="base_model="):
            AdapterMerger().merge(adapter, tmp_path / "merged")
        with pytest.raises(UnsupportedModelError, match=rf"{other} \(SHA-256 \w{{12}}….*base_model="):
            LocalModel(adapter, base_model=other, device="cpu")
        with pytest.raises(MergeError, match=rf"{other} .*SHA-256 .*\w{{12}}….*\w{{12}}….*AdapterMerger\(base_model="):
            AdapterMerger(base_model=other).merge(adapter, tmp_path / "merged")
        again = LocalModel(adapter, base_model=moved, device="cpu", max_tokens=4).generate(RECORDS[:2])
        assert [answer.text for answer in again] == [answer.text for answer in answers]
        assert AdapterMerger(base_model=moved).merge(adapter, tmp_path / "merged").path.is_dir()
    finally:
        moved.rename(place / "b")
