"""Two processes take the same steps as one, with a base sharded by FSDP2 and with a complete base on each."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sqlquarry import Records
from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import RecordError, TrainingError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig, launch
from sqlquarry.training.encoding import kept
from training_runs import OPTIONS, RECORDS, KilledError, difference, killed_in_step, log_of, trainer


@pytest.fixture(scope="module")
def runs(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterCheckpoint]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        trainer(tiny_llama, gradient_checkpointing=processes is not None, sharding=sharding).train(
            RECORDS, RECORDS[:5], output_dir=folder / sharding, processes=processes
        )
        for processes, sharding in ((None, "hybrid"), (2, "full"), (2, "none"))
    ]


@pytest.mark.parametrize("several", [1, 2], ids=["sharded", "complete"])
def test_losses_and_adapter_equal_those_of_one_process(runs: list[AdapterCheckpoint], several: int) -> None:
    runs = [runs[0], runs[several]]
    one, two = (log_of(run.path) for run in runs)
    assert [entry["loss"] for entry in two] == pytest.approx([entry["loss"] for entry in one], rel=1e-5)
    evaluated = [[entry["eval_loss"] for entry in log if "eval_loss" in entry] for log in (one, two)]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-5)
    assert difference(runs[0].path, runs[1].path) < 1e-4
    assert [run.run.processes for run in runs] == [1, 2]
    assert [run.run.shard_group_size for run in runs] == [1, 3 - several]
    assert runs[0].manifest.provenance["quantization"] == runs[1].manifest.provenance["quantization"]


def test_two_machines_with_one_sharded_base_each_resume_a_run_of_one_process(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trainer(tiny_llama, records_per_step=16)
    one = alone.train(RECORDS, output_dir=tmp_path / "one")
    with monkeypatch.context() as patch:
        killed_in_step(patch, 2)
        with pytest.raises(KilledError):
            alone.train(RECORDS, output_dir=tmp_path / "run")
    before = log_of(tmp_path / "run")
    Records(RECORDS).to_jsonl(tmp_path / "train.jsonl")
    config = OPTIONS | {"records_per_step": 16, "sharding": "hybrid", "cpu_offload": True, "gradient_checkpointing": 1}
    jobs = [tmp_path / "run.json", tmp_path / "elsewhere.json"]  # the second machine does not see the first's disk
    for path in jobs:
        job = {
            "base_model": str(tiny_llama),
            "train": str(tmp_path / "train.jsonl"),
            "output_dir": str(path.with_suffix("")),
        }
        path.write_text(json.dumps(job | {"config": config}))
    four = [str(Path(__file__).parents[2] / "support" / "two_machines.py"), *map(str, jobs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": launch.LOOPBACK}
    subprocess.run(
        [sys.executable, *launch.TORCHRUN, "--nproc-per-node=4", *four], check=True, timeout=250, env=environment
    )
    run = AdapterCheckpoint.load(tmp_path / "run").run
    assert (run.processes, run.shard_group_size) == (4, 2)
    assert log_of(tmp_path / "run")[:2] == before  # with their seconds, so no step was repeated
    assert not (tmp_path / "elsewhere").exists()
    mine, theirs = ([entry["loss"] for entry in log_of(path)] for path in (tmp_path / "run", one.path))
    assert mine == pytest.approx(theirs, rel=1e-5)
    assert difference(one.path, tmp_path / "run") < 1e-4


def test_an_error_in_the_processes_is_raised_with_its_class_and_message(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kept, "LARGE", 0)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("x")
    messages = []
    for processes in (None, 2):
        with pytest.raises(TrainingError, match=f"{re.escape(str(tmp_path / 'a'))} .* empty output_dir") as caught:
            trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a", processes=processes)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert capsys.readouterr().err.count("encoding") == 1  # the processes find what this one encoded


def run_in_the_processes(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Put another package named sqlquarry first, so that torchrun starts the program instead of this library."""
    (folder / "sqlquarry").mkdir()
    (folder / "sqlquarry" / "__init__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_processes_that_cannot_start_say_why(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    program = "import os; raise ImportError('half an installation, threads are ' + os.environ['OMP_WAIT_POLICY'])"
    run_in_the_processes(program, tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match="ImportError: half an installation, threads are passive"):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a", processes=2)
    assert "ImportError: half an installation" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_the_error_reports_the_process_that_a_signal_ended_and_not_its_peer(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    # One process is ended by a signal, as if memory ran out. The other reports that it lost its peer.
    program = (
        "import json, os, pathlib, time\n"
        "failure = {'class': 'RuntimeError', 'message': 'connection closed by peer'}\n"
        "noted = pathlib.Path(os.environ['SQLQUARRY_FAILURES'], 'failure-0.json')\n"
        "if os.environ['RANK'] == '0':\n"
        "    noted.write_text(json.dumps(failure))\n"
        "    time.sleep(60)\n"
        "while not noted.exists():\n"
        "    time.sleep(0.01)\n"
        f"os.kill(os.getpid(), {int(number)})\n"
    )
    run_in_the_processes(program, tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match=rf"process 1 .*signal {int(number)}\b") as caught:
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a", processes=2)
    assert "connection closed by peer" not in str(caught.value)


def test_torchrun_gets_sigterm_if_waiting_for_it_ends_early(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # If torchrun were killed, it would leave its processes behind, because they run in their own sessions.
    program = (
        "import pathlib, signal, sys, time\n"
        "def end(*_): pathlib.Path(sys.argv[1]).write_text('SIGTERM'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('ready', file=sys.stderr, flush=True); time.sleep(60)"
    )

    class Stderr(io.StringIO):
        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGUSR1)
            return super().write(text)

    def give_up(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(launch, "TORCHRUN", ("-c", program, str(tmp_path / "end")))
    monkeypatch.setattr(sys, "stderr", Stderr())
    before = signal.signal(signal.SIGUSR1, give_up)
    try:
        with pytest.raises(TimeoutError):
            launch.launch(
                RECORDS[:1],
                [],
                base_model="base",
                formatter=PromptFormatter(),
                config=TrainingConfig(),
                output_dir=tmp_path / "a",
                checkpoint_dir=None,
                processes=1,
                session=None,
            )
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "end").read_text() == "SIGTERM"


def test_invalid_records_are_found_before_processes_start(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "TORCHRUN", ("-c", "raise SystemExit('started')"))
    config = TrainingConfig(max_length=16, device="cpu")
    with pytest.raises(RecordError, match="max_length=16"):
        QLoRAFSDPTrainer(tiny_llama, config=config).train(
            [Record("q", "s", "SELECT 1")], output_dir=tmp_path, processes=2
        )
