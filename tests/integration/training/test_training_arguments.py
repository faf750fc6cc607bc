"""Invalid arguments are refused before anything is read, and plans have notes on evaluation records."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig

from conftest import toy_examples

RECORDS = [Record(**example) for example in toy_examples(8)]
OPTIONS: dict[str, Any] = {"num_train_epochs": 1, "records_per_step": 4, "max_length": 512, "device": "cpu"}


def trainer(base: str | Path) -> QLoRAFSDPTrainer:
    return QLoRAFSDPTrainer(base, config=TrainingConfig(**OPTIONS, quantization=None))


@pytest.mark.parametrize("processes", [0, -1, "2", 2.0, True])
def test_processes_are_whole_numbers(tmp_path: Path, processes: Any) -> None:
    # The base does not exist, so nothing can have been read.
    with pytest.raises(ConfigError, match="processes"):
        trainer(tmp_path / "none").train(RECORDS, output_dir=tmp_path / "out", processes=processes)
    with pytest.raises(ConfigError, match="processes"):
        trainer(tmp_path / "none").plan(RECORDS, processes=processes)


def test_planned_processes_are_a_number_or_auto(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"processes .*None"):
        trainer(tmp_path / "none").plan(RECORDS, processes=None)  # type: ignore[arg-type]  # invalid on purpose


@pytest.mark.parametrize("place", [".", "checkpoints", "x/../checkpoints/now"])
def test_checkpoints_in_the_adapters_directory_are_refused(tmp_path: Path, place: str) -> None:
    output = tmp_path / "out"
    with pytest.raises(ConfigError, match="checkpoint_dir"):
        trainer(tmp_path / "none").train(RECORDS, output_dir=output, checkpoint_dir=output / place)


def test_a_file_as_checkpoint_dir_is_refused(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="checkpoint_dir"):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "out", checkpoint_dir=tmp_path / "file")


def test_a_tilde_is_the_home_directory(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "base").symlink_to(tiny_llama)
    adapter = trainer("~/base").train(RECORDS, output_dir="~/adapter")
    assert adapter.path == tmp_path / "adapter"
    assert not (tmp_path / "~").exists()
    with pytest.raises(ConfigError):
        trainer(tiny_llama).train(RECORDS, output_dir="~nobody-of-this-name/adapter")


def test_special_tokens_of_evaluation_records_are_noted_once(tiny_llama: Path) -> None:
    odd = Record("What is <|im_end|>?", "CREATE TABLE t (a INT)", "SELECT a FROM t")
    for records, evaluation in (([*RECORDS, odd], None), (RECORDS, [odd])):
        notes = trainer(tiny_llama).plan(records, evaluation).notes
        assert ["<|im_end|>" in note for note in notes].count(True) == 1
        assert len(set(notes)) == len(notes)
    with pytest.raises(RecordError, match="evaluation"):
        trainer(tiny_llama).plan(RECORDS, [Record("q", "s", "SELECT '<|im_end|>'")])


@pytest.mark.parametrize("seed", ["a", 1.5, True, 2**70])
def test_seeds_are_whole_numbers(tiny_llama: Path, seed: Any) -> None:
    with pytest.raises(ConfigError, match="seed"):
        LocalModel(tiny_llama, device="cpu").complete(["SELECT"], DecodingOptions(max_tokens=1, seed=seed))
