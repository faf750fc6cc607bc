"""A run that was killed resumes to the same adapter as an uninterrupted run, bit for bit on one process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import boto3
import psutil
import pytest
import safetensors.torch
import torch  # noqa: TC002 - tests do not use type-checking blocks
from moto import mock_aws
from safetensors.torch import load_file

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import TrainingError, TrainingInterruptedError
from sqlquarry.training import launch
from sqlquarry.training.steps import engine
from training_runs import OPTIONS, RECORDS, KilledError, difference, in_step, killed_in_step, log_of, trainer


@pytest.fixture(scope="module")
def uninterrupted(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    return trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path_factory.mktemp("run") / "adapter")


def test_a_run_that_was_killed_in_any_step_resumes_bit_for_bit(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = uninterrupted.run.steps
    assert steps >= 8
    for doomed in sorted(random.Random(0).sample(range(1, steps), 3)):
        with monkeypatch.context() as patch:
            killed_in_step(patch, doomed)
            with pytest.raises(KilledError):
                trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    resumed = trainer(tiny_llama, save_steps=None).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    assert difference(uninterrupted.path, resumed.path) == 0.0
    numbers = [
        [(e["step"], e["loss"], e.get("eval_loss")) for e in log_of(run.path)] for run in (uninterrupted, resumed)
    ]
    assert numbers[0] == numbers[1]
    assert not [path for path in resumed.path.iterdir() if path.name.startswith(".")]
    ours, theirs = (run.run for run in (uninterrupted, resumed))
    assert ours.training_loss == theirs.training_loss


@pytest.mark.parametrize("kind", ["directory", "S3"])
def test_a_run_resumes_from_a_separate_checkpoint_dir(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    with mock_aws(config={"core": {"mock_credentials": False}}):
        session = boto3.session.Session("key", "secret", region_name="us-east-1")
        session.client("s3").create_bucket(Bucket="bucket")
        place = str(tmp_path / "checkpoints") if kind == "directory" else "s3://bucket/runs/7"

        def names() -> list[str]:
            if kind == "directory":
                return sorted(path.name for path in Path(place).glob("*"))
            listed = session.client("s3").list_objects_v2(Bucket="bucket", Prefix="runs/7/").get("Contents", [])
            return sorted(item["Key"].removeprefix("runs/7/") for item in listed)

        def train() -> AdapterCheckpoint:
            run = trainer(tiny_llama)
            run.session = session
            return run.train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a", checkpoint_dir=place)

        with monkeypatch.context() as patch:
            killed_in_step(patch, 4)
            with pytest.raises(KilledError):
                train()
        assert [name.split("-")[1] for name in names()] == ["00000003", "00000004"]
        assert not (tmp_path / "a" / ".checkpoints").exists()
        before = log_of(tmp_path / "a")
        resumed = train()
        assert log_of(tmp_path / "a")[:4] == before  # with their seconds, so no step was repeated
        assert difference(uninterrupted.path, resumed.path) == 0.0
        assert names() == []


def test_an_error_does_not_lose_the_checkpoint_that_is_being_written(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = safetensors.torch.save_file

    def slowly(*arguments: Any, **options: Any) -> None:
        time.sleep(0.5)
        real(*arguments, **options)

    monkeypatch.setattr(safetensors.torch, "save_file", slowly)
    killed_in_step(monkeypatch, 2)
    with pytest.raises(KilledError):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a")
    found = [path.name for path in (tmp_path / "a").rglob("step-*.safetensors")]
    assert max(found).startswith("step-00000002-")


def test_a_signal_stops_the_run_after_a_complete_step(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        in_step(patch, 2, lambda: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(TrainingInterruptedError, match=r"step [34] of"):
            trainer(tiny_llama, save_steps=None).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    resumed = trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    assert difference(uninterrupted.path, resumed.path) == 0.0


def test_a_different_run_does_not_resume(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        killed_in_step(patch, 5)
        with pytest.raises(KilledError):
            trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    before = sorted(path.name for path in (tmp_path / "a" / ".checkpoints").iterdir())
    assert before
    with pytest.raises(TrainingError, match="data_sha256"):
        trainer(tiny_llama).train(RECORDS[1:], output_dir=tmp_path / "a")
    with pytest.raises(TrainingError, match=r"config\.lora_r"):
        trainer(tiny_llama, lora_r=8).train(RECORDS, output_dir=tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a" / ".checkpoints").iterdir()) == before


def test_a_loss_that_is_not_finite_keeps_the_adapter_from_before(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.answer_loss
    calls = []

    def breaks(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) > 8 else 1)

    monkeypatch.setattr(engine, "answer_loss", breaks)
    with pytest.raises(TrainingError, match=r"loss .*nan .*step \d+"):
        trainer(tiny_llama, save_steps=None).train(RECORDS, output_dir=tmp_path / "a")
    (checkpoint,) = (tmp_path / "a" / ".checkpoints").iterdir()
    assert all(tensor.isfinite().all() for tensor in load_file(checkpoint).values())


def job(base: Path, folder: Path, **changes: Any) -> Path:
    (folder / "train.jsonl").write_text(
        "".join(json.dumps({"question": r.question, "schema": r.schema, "sql": r.sql}) + "\n" for r in RECORDS)
    )
    content = {"base_model": str(base), "train": str(folder / "train.jsonl"), "output_dir": str(folder / "adapter")}
    (folder / "job.json").write_text(json.dumps(content | {"config": OPTIONS | changes}))
    return folder / "job.json"


def wait_for_step(directory: Path, step: int, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 200
    while len(log_of(directory)) < step:
        assert time.monotonic() < deadline
        assert process.poll() is None, f"ended early with {process.returncode}"
        time.sleep(0.02)


@pytest.mark.parametrize("killer", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_process_resumes(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, killer: signal.Signals
) -> None:
    command = [sys.executable, "-m", "sqlquarry.training", str(job(tiny_llama, tmp_path))]
    process = subprocess.Popen(command)
    wait_for_step(tmp_path / "adapter", random.Random(killer).randint(1, 5), process)
    process.send_signal(killer)
    assert process.wait() == (143 if killer == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "adapter" / "manifest.json").exists()
    subprocess.run(command, check=True)
    assert difference(uninterrupted.path, tmp_path / "adapter") == 0.0


def test_if_one_of_two_processes_is_killed_the_other_ends_and_one_process_resumes(
    uninterrupted: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    path = job(tiny_llama, tmp_path)
    process = subprocess.Popen(
        [sys.executable, *launch.TORCHRUN, "--nproc-per-node=2", "-m", "sqlquarry.training", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": launch.LOOPBACK},
    )
    wait_for_step(tmp_path / "adapter", 2, process)
    psutil.Process(process.pid).children()[-1].kill()
    killed = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - killed < 60
    subprocess.run([sys.executable, "-m", "sqlquarry.training", str(path)], check=True)
    assert difference(uninterrupted.path, tmp_path / "adapter") < 1e-4  # two processes sum in another order
