"""Two processes take the same steps as one, under FSDP2 and with the base whole on each."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sqlquarry import Records
from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.errors import RecordError, TrainingError
from sqlquarry.records import Record
from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig, launch
from sqlquarry.training.steps import loop
from training_runs import OPTIONS, RECORDS, difference, log_of, trainer


@pytest.fixture(scope="module")
def runs(tiny_llama: Path, tmp_path_factory: pytest.TempPathFactory) -> list[AdapterCheckpoint]:
    folder = tmp_path_factory.mktemp("runs")
    return [
        trainer(tiny_llama, gradient_checkpointing=processes is not None, sharding=sharding).train(
            RECORDS, RECORDS[:5], output_dir=folder / sharding, processes=processes
        )
        for processes, sharding in ((None, "hybrid"), (2, "full"), (2, "none"))
    ]


@pytest.mark.parametrize("several", [1, 2], ids=["sharded", "whole"])
def test_losses_and_adapter_are_those_of_one_process(runs: list[AdapterCheckpoint], several: int) -> None:
    runs = [runs[0], runs[several]]
    one, two = (log_of(run.path) for run in runs)
    assert [entry["loss"] for entry in two] == pytest.approx([entry["loss"] for entry in one], rel=1e-5)
    evaluated = [[entry["eval_loss"] for entry in log if "eval_loss" in entry] for log in (one, two)]
    assert evaluated[1] == pytest.approx(evaluated[0], rel=1e-5)
    assert difference(runs[0].path, runs[1].path) < 1e-4
    assert [run.manifest.provenance["run"]["processes"] for run in runs] == [1, 2]
    assert [run.manifest.provenance["run"]["shard_group_size"] for run in runs] == [1, 3 - several]
    assert runs[0].manifest.provenance["quantization"] == runs[1].manifest.provenance["quantization"]


def test_two_machines_that_share_a_base_each_go_on_as_one_process(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = trainer(tiny_llama, records_per_step=16)
    one = alone.train(RECORDS, output_dir=tmp_path / "one")
    real = loop.Loop._step
    monkeypatch.setattr(loop.Loop, "_step", lambda self, step, stop: real(self, step, stop) if step < 2 else 1 / 0)
    with pytest.raises(ZeroDivisionError):
        alone.train(RECORDS, output_dir=tmp_path / "run")
    before = log_of(tmp_path / "run")
    Records(RECORDS).to_jsonl(tmp_path / "train.jsonl")
    config = OPTIONS | {"records_per_step": 16, "sharding": "hybrid", "cpu_offload": True, "gradient_checkpointing": 1}
    jobs = [tmp_path / "run.json", tmp_path / "elsewhere.json"]  # the second machine does not see the first one's disk
    for path in jobs:
        job = {
            "base_model": str(tiny_llama),
            "train": str(tmp_path / "train.jsonl"),
            "output_dir": str(path.with_suffix("")),
        }
        path.write_text(json.dumps(job | {"config": config}))
    four = [str(Path(__file__).parents[2] / "support" / "two_machines.py"), *map(str, jobs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run(
        [sys.executable, *launch.TORCHRUN, "--nproc-per-node=4", *four], check=True, timeout=250, env=environment
    )
    run = AdapterCheckpoint.load(tmp_path / "run").manifest.provenance["run"]
    assert (run["processes"], run["shard_group_size"]) == (4, 2)
    assert log_of(tmp_path / "run")[:2] == before  # with the seconds that they took: nothing was done again
    assert not (tmp_path / "elsewhere").exists()
    mine, theirs = ([entry["loss"] for entry in log_of(path)] for path in (tmp_path / "run", one.path))
    assert mine == pytest.approx(theirs, rel=1e-5)
    assert difference(one.path, tmp_path / "run") < 1e-4


def test_an_error_in_the_processes_comes_back_as_itself(tiny_llama: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "mine.txt").write_text("x")
    with pytest.raises(TrainingError, match="holds files that no training run wrote"):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a", processes=2)


def run_instead_of_ours(program: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package of this name comes first: torchrun starts, but none of our code does."""
    (folder / "sqlquarry").mkdir()
    (folder / "sqlquarry" / "__init__.py").write_text(program)
    monkeypatch.setenv("PYTHONPATH", str(folder))


def test_processes_that_cannot_start_say_why(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    program = "import os; raise ImportError('half an installation, threads are ' + os.environ['OMP_WAIT_POLICY'])"
    run_instead_of_ours(program, tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match="first error above is ImportError: half an installation, threads are pass"):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a", processes=2)
    assert "ImportError: half an installation" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_a_signal_ends_is_named_and_not_the_error_of_the_one_that_lost_it(
    tiny_llama: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    # One process ends as for lack of memory, the other notes that it lost its peer.
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
    run_instead_of_ours(program, tmp_path, monkeypatch)
    with pytest.raises(TrainingError, match=rf"process 1 was ended by signal {int(number)} \(.+Run again"):
        trainer(tiny_llama).train(RECORDS, output_dir=tmp_path / "a", processes=2)


def test_torchrun_is_told_to_end_where_waiting_for_it_ends_early(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Killed, it would leave its processes behind, which run in sessions of their own.
    program = (
        "import pathlib, signal, sys, time\n"
        "def end(*_): pathlib.Path(sys.argv[1]).write_text('told'); sys.exit()\n"
        "signal.signal(signal.SIGTERM, end); print('ready', file=sys.stderr, flush=True); time.sleep(60)"
    )

    class Stderr(io.StringIO):
        def write(self, text: str) -> int:
            os.kill(os.getpid(), signal.SIGUSR1)
            return super().write(text)

    def give_up(*_: object) -> None:
        raise TimeoutError

    monkeypatch.setattr(sys, "stderr", Stderr())
    before = signal.signal(signal.SIGUSR1, give_up)
    try:
        with pytest.raises(TimeoutError):
            launch._run([sys.executable, "-c", program, str(tmp_path / "end")], os.environ)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "end").read_text() == "told"


def test_bad_records_are_found_before_processes_start(tiny_llama: Path, tmp_path: Path) -> None:
    config = TrainingConfig(max_length=16, device="cpu")
    with pytest.raises(RecordError, match="longer than max_length"):
        QLoRAFSDPTrainer(tiny_llama, config=config).train(
            [Record("q", "s", "SELECT 1")], output_dir=tmp_path, processes=2
        )
