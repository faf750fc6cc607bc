"""Weights & Biases and MLflow receive all figures of real runs (offline)."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sqlquarry.training.tracking import reporting
from sqlquarry.training.tracking.reporting import Reporter
from training_runs import OPTIONS, RECORDS, KilledError, killed_in_step, log_of, trainer

FIGURES = ("loss", "learning_rate", "grad_norm", "tokens")
SECRET = "of-the-environment-only"


@pytest.fixture
def wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    import wandb as module

    for name, value in {"MODE": "offline", "DIR": str(tmp_path), "SILENT": "true"}.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    yield module
    module.teardown()


@pytest.fixture
def mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    import mlflow as module

    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    return module


def killed_and_resumed(base: Path, output: Path, monkeypatch: pytest.MonkeyPatch, *report_to: str) -> list[Any]:
    """Run two sessions of one training, the first of which dies in its fifth step, and return the log entries."""
    monkeypatch.setenv("SOME_TOKEN", SECRET)
    with monkeypatch.context() as patched:
        killed_in_step(patched, 4)
        with pytest.raises(KilledError):
            trainer(base, report_to=report_to).train(RECORDS, output_dir=output)
    trainer(base, report_to=report_to).train(RECORDS, output_dir=output)
    return log_of(output)


@pytest.mark.usefixtures("wandb")
def test_wandb_receives_every_figure_of_a_resumed_run(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entries = killed_and_resumed(tiny_llama, tmp_path / "a", monkeypatch, "wandb")
    first, second = runs = [wandb_run(path) for path in wandb_files(tmp_path)]
    for figure in FIGURES:
        reported = [(row["train/global_step"], row[f"train/{figure}"]) for run in runs for row in run["history"]]
        assert reported == [(entry["step"], pytest.approx(entry[figure])) for entry in entries]
    assert len(first["history"]) == 4
    assert [first["exit"], second["exit"]] == [1, 0]
    for run in runs:
        assert run["config"]["learning_rate"] == OPTIONS["learning_rate"]
        assert run["config"]["seed"] == 42
        assert run["config"]["lora_dropout"] == OPTIONS["lora_dropout"]
        assert "weight_decay" not in run["config"]
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_mlflow_and_tensorboard_receive_every_figure_of_a_resumed_run(
    mlflow: ModuleType, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    entries = killed_and_resumed(tiny_llama, tmp_path / "a", monkeypatch, "mlflow", "tensorboard")
    client = mlflow.MlflowClient()
    runs = client.search_runs(["0"], order_by=["attributes.start_time"])
    assert [run.info.status for run in runs] == ["FAILED", "FINISHED"]
    for figure in FIGURES:
        history = [point for run in runs for point in client.get_metric_history(run.info.run_id, figure)]
        assert [(point.step, point.value) for point in sorted(history, key=lambda point: point.step)] == [
            (entry["step"], pytest.approx(entry[figure])) for entry in entries
        ]
    for run in runs:
        assert run.data.params["learning_rate"] == str(OPTIONS["learning_rate"])
        assert run.data.params["seed"] == "42"
        assert "weight_decay" not in run.data.params
    scalars = [
        (event.step, event.value)
        for path in (tmp_path / "a").rglob("events.out.tfevents.*")
        for event in EventAccumulator(str(path)).Reload().Scalars("train/loss")
    ]
    assert sorted(scalars) == [(entry["step"], pytest.approx(entry["loss"])) for entry in entries]
    assert not any(SECRET.encode() in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_all_three_at_once(wandb: ModuleType, mlflow: ModuleType, tmp_path: Path) -> None:
    with Reporter(("tensorboard", "wandb", "mlflow"), tmp_path / "a", {"rank": 8}, steps=1) as report:
        report({"step": 1, "loss": 2.0})
    assert wandb.run is None
    assert mlflow.active_run() is None
    (path,) = wandb_files(tmp_path)
    assert wandb_run(path)["config"]["rank"] == 8
    (run,) = mlflow.MlflowClient().search_runs(["0"])
    assert run.data.metrics == {"loss": 2.0}
    assert len(list((tmp_path / "a").rglob("events.out.tfevents.*"))) == 1


def test_a_run_that_is_already_open_stays_open(wandb: ModuleType, mlflow: ModuleType, tmp_path: Path) -> None:
    with wandb.init(project="mine") as mine, mlflow.start_run() as ours:
        for rank in (8, 16):  # MLflow refuses a second value of a parameter, so only W&B gets it
            with Reporter(("wandb", "mlflow") if rank == 8 else "wandb", tmp_path, {"rank": rank}, steps=1) as report:
                report({"step": 1, "loss": 2.0})
            assert wandb.run is mine
            assert mlflow.active_run() is ours
    assert len(wandb_files(tmp_path)) == 1
    assert mlflow.get_run(ours.info.run_id).data.params["rank"] == "8"


def test_an_mlflow_run_can_be_continued_by_its_id(
    mlflow: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        with Reporter("mlflow", tmp_path / str(step), {"rank": 8}, steps=2 + step) as report:
            report({"step": step, "loss": 2.0 / step})
        (run,) = mlflow.MlflowClient().search_runs(["0"])
        monkeypatch.setenv("MLFLOW_RUN_ID", run.info.run_id)
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert [(point.step, point.value) for point in history] == [(1, 2.0), (2, 1.0)]
    assert run.info.status == "FINISHED"


def test_an_error_of_a_service_does_not_lose_the_adapter(
    mlflow: ModuleType, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Reporter("mlflow", tmp_path, {"rank": 8}, steps=2) as report:
        report({"step": 1, "loss": 2.0})
        mlflow.flush_async_logging()
        with contextlib.closing(sqlite3.connect(tmp_path / "mlflow.db")) as store:
            store.execute("DROP TABLE runs")
        report({"step": 2, "loss": 1.0})
    (record,) = (record for record in caplog.records if record.name == reporting.__name__)
    assert record.levelname == "ERROR"
    assert "mlflow" in record.getMessage()
    assert mlflow.active_run() is None


def wandb_files(directory: Path) -> list[Path]:
    paths = [path for path in directory.rglob("*.wandb") if not path.parent.is_symlink()]
    return sorted(paths, key=os.path.getmtime)


def wandb_run(path: Path) -> dict[str, Any]:
    """Read an offline file. After a header of seven bytes, its records are in blocks as in LevelDB's log."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, joined = path.read_bytes(), 7, b""
    run: dict[str, Any] = {"config": {}, "history": [], "exit": None}
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:  # no record begins in the last bytes of a block
            at += 32768 - at % 32768
            continue
        size, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        joined += data[at + 7 : at + 7 + size]
        at += 7 + size
        if kind not in (1, 4):  # the record continues in the next block
            continue
        record, joined = Record.FromString(joined), b""
        if record.HasField("history"):
            run["history"].append(_items(record.history.item))
        elif record.HasField("config"):
            run["config"] |= _items(record.config.update)
        elif record.HasField("exit"):
            run["exit"] = record.exit.exit_code
    return run


def _items(items: Any) -> dict[str, Any]:
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}
