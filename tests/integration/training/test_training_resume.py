"""A run that is killed and called again gives the uninterrupted run's adapter, bit for bit on one process."""

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

import pytest
import torch  # noqa: TC002 - tests are no place for type-checking blocks
from safetensors.torch import load_file

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import TrainingError, TrainingInterruptedError
from sqlquarry.training import launch
from sqlquarry.training.steps import checkpoint, engine, loop
from training_runs import OPTIONS, RECORDS, difference, log_of, trainer


@pytest.fixture(scope="module")
def whole(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> AdapterCheckpoint:
    return trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path_factory.mktemp("whole") / "adapter")


def test_stopped_after_any_step_it_goes_on_bit_for_bit(
    whole: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Killed three times at random steps, as an exception in the middle of a step would do.
    steps = whole.run.steps
    assert steps >= 8
    real = loop.Loop._step
    for doomed in sorted(random.Random(0).sample(range(1, steps), 3)):

        def dies(self: Any, step: int, stop: bool, doomed: int = doomed) -> Any:
            if step == doomed:
                raise RuntimeError("killed")
            return real(self, step, stop)

        monkeypatch.setattr(loop.Loop, "_step", dies)
        with pytest.raises(RuntimeError, match="killed"):
            trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    monkeypatch.undo()
    resumed = trainer(tiny_llama, save_steps=None).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    assert difference(whole.path, resumed.path) == 0.0
    numbers = [[(e["step"], e["loss"], e.get("eval_loss")) for e in log_of(run.path)] for run in (whole, resumed)]
    assert numbers[0] == numbers[1]
    assert not [path for path in resumed.path.iterdir() if path.name.startswith(".")]
    ours, theirs = (run.run for run in (whole, resumed))
    assert ours.training_loss == theirs.training_loss


def test_an_error_does_not_lose_the_checkpoint_that_is_being_written(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_step, real_write = loop.Loop._step, checkpoint.Checkpoints._write

    def dies(self: Any, step: int, stop: bool) -> Any:
        if step == 2:
            raise RuntimeError("killed")
        return real_step(self, step, stop)

    def slowly(self: Any, snapshot: Any) -> None:
        time.sleep(0.5)
        real_write(self, snapshot)

    monkeypatch.setattr(loop.Loop, "_step", dies)
    monkeypatch.setattr(checkpoint.Checkpoints, "_write", slowly)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a")
    found = [path.name for path in (tmp_path / "a").rglob("step-*.safetensors")]
    assert max(found).startswith("step-00000002-")


def test_a_signal_ends_it_after_a_whole_step(
    whole: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop.Loop._step

    def signalled(self: Any, step: int, stop: bool) -> Any:
        if step == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step, stop)

    monkeypatch.setattr(loop.Loop, "_step", signalled)
    with pytest.raises(TrainingInterruptedError, match=r"after step [34] of"):
        trainer(tiny_llama, save_steps=None).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    monkeypatch.undo()
    resumed = trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    assert difference(whole.path, resumed.path) == 0.0


def test_another_run_is_not_gone_on_with(tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop.Loop, "_evaluate", lambda _: 1 / 0)  # ends the run after its first epoch
    with pytest.raises(ZeroDivisionError):
        trainer(tiny_llama).train(RECORDS, RECORDS[:4], output_dir=tmp_path / "a")
    before = sorted(path.name for path in (tmp_path / "a" / ".checkpoints").iterdir())
    with pytest.raises(TrainingError, match=r"unfinished run that differs in data_sha256"):
        trainer(tiny_llama).train(RECORDS[1:], output_dir=tmp_path / "a")
    with pytest.raises(TrainingError, match=r"unfinished run that differs in config"):
        trainer(tiny_llama, lora_r=8).train(RECORDS, output_dir=tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a" / ".checkpoints").iterdir()) == before


def test_a_loss_that_is_no_number_keeps_the_adapter_from_before(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = engine.answer_loss
    calls = []

    def breaks(*arguments: Any) -> torch.Tensor:
        calls.append(1)
        return real(*arguments) * (float("nan") if len(calls) > 8 else 1)

    monkeypatch.setattr(engine, "answer_loss", breaks)
    with pytest.raises(TrainingError, match=r"the loss became nan in step \d+ .* kept in the last checkpoint"):
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
def test_a_killed_process_goes_on(
    whole: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path, killer: signal.Signals
) -> None:
    command = [sys.executable, "-m", "sqlquarry.training", str(job(tiny_llama, tmp_path))]
    process = subprocess.Popen(command)
    wait_for_step(tmp_path / "adapter", random.Random(killer).randint(1, 5), process)
    process.send_signal(killer)
    assert process.wait() == (143 if killer == signal.SIGTERM else -signal.SIGKILL)
    assert not (tmp_path / "adapter" / "manifest.json").exists()
    subprocess.run(command, check=True)
    assert difference(whole.path, tmp_path / "adapter") == 0.0


def test_a_process_of_two_that_is_killed_ends_the_other_and_one_goes_on_alone(
    whole: AdapterCheckpoint, tiny_llama: Path, tmp_path: Path
) -> None:
    path = job(tiny_llama, tmp_path)
    process = subprocess.Popen(
        [sys.executable, *launch.TORCHRUN, "--nproc-per-node=2", "-m", "sqlquarry.training", str(path)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"},
    )
    wait_for_step(tmp_path / "adapter", 2, process)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(children[-1]), signal.SIGKILL)
    killed = time.monotonic()
    assert process.wait(timeout=60) != 0
    assert time.monotonic() - killed < 60
    subprocess.run([sys.executable, "-m", "sqlquarry.training", str(path)], check=True)
    assert difference(whole.path, tmp_path / "adapter") < 1e-4  # two processes sum in another order
