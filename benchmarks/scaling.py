"""Measures QLoRA with FSDP2 on 1, 2, 4, … GPUs: speed, memory and communication, then interruption and merging.

    python benchmarks/scaling.py [--shapes 8b,70b] [--gpus 1,2] [--steps 10] [--only speed,runs]

`speed` uses random weights that are generated on the GPUs, and rows like those of packed records, which are the same
for every number of GPUs. Weights are held in 4 bits, or as the 4-bit values in bf16 ("dequantized"). They are split
across all GPUs (FSDP2) or complete on each. `runs` uses the trainer on a model on disk. It compares the adapters of
several GPUs and of one, kills a process, resumes on one GPU, merges and checks. Every measurement is printed as a JSON
object.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib
import json
import multiprocessing
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from unittest import mock

from common import (
    GIB,
    SHAPES,
    argument_parser,
    clock,
    hand_back,
    make_base,
    random_base,
    random_row,
    read_jsonl,
    run_apart,
    seconds_per_step,
    torchrun,
    toy_records,
    wait_for_steps,
)

if TYPE_CHECKING:
    import sqlquarry as sq
    from sqlquarry.training.steps.loop import Loop

WARM_UP = 2  # the first steps compile and allocate


@dataclasses.dataclass(frozen=True)
class Job:
    """One measurement of `speed`, by several processes."""

    sharding: Literal["full", "none"]
    shape: str
    held: str
    checkpointing: bool
    steps: int
    attention: Literal["auto", "sdpa", "flex_attention"]
    rows_per_step: int
    row_tokens: int
    trace: str | None
    launched: bool


def main() -> None:
    options = _options()
    if options.worker:
        work(Job(**json.loads(options.worker)))
        return
    import torch

    available = torch.cuda.device_count()
    gpus = [int(count) for count in options.gpus.split(",")] if options.gpus else [1, 2, 4, 8]
    gpus = [count for count in gpus if count <= (available or 2)]  # without a GPU, two processes to try out this script
    print(json.dumps(_machine()), flush=True)
    if "speed" in options.only:
        speeds(options, gpus)
    if "runs" in options.only:
        runs(options, max(gpus))


def speeds(options: argparse.Namespace, gpus: list[int]) -> None:
    """Print the tokens per second for every shape, number of GPUs and way to hold the weights."""
    for shape in options.shapes.split(","):
        for held in options.held.split(","):
            for checkpointing in [word == "on" for word in options.checkpointing.split(",")]:
                first: float | None = None
                for count, sharding in [(number, kind) for number in gpus for kind in shardings(options, number)]:
                    job = Job(
                        sharding=sharding,
                        shape=shape,
                        held=held,
                        checkpointing=checkpointing,
                        steps=options.steps,
                        attention=options.attention,
                        rows_per_step=options.rows_per_step,
                        row_tokens=options.row_tokens,
                        trace=options.trace,
                        launched=options.launched,
                    )
                    worker = ["--worker", json.dumps(dataclasses.asdict(job))]
                    try:
                        found = run_apart(torchrun(count, __file__, *worker))
                    except subprocess.CalledProcessError:
                        failed = {**dataclasses.asdict(job), "gpus": count, "failed": True}
                        print(json.dumps(failed), flush=True)
                        continue
                    first = first or found["tokens_per_second"] / count
                    efficiency = found["tokens_per_second"] / count / first
                    print(json.dumps({**found, "gpus": count, "efficiency": round(efficiency, 4)}), flush=True)


def shardings(options: argparse.Namespace, gpus: int) -> list[Literal["full", "none"]]:
    """Return the ways to place the base on the GPUs that are measured. On a single GPU there is only one."""
    kinds: list[Literal["full", "none"]] = options.sharding.split(",")
    return kinds if gpus > 1 else kinds[:1]


def work(job: Job) -> None:
    """Measure in one of the processes. The first process hands back the results of all processes."""
    import torch

    from sqlquarry.pretrained import compute_dtype
    from sqlquarry.quantization import hold_dequantized
    from sqlquarry.training.config import TrainingConfig
    from sqlquarry.training.steps.adapted_model import make_trainable
    from sqlquarry.training.steps.loop import Loop
    from sqlquarry.training.steps.schedule import Schedule
    from sqlquarry.training.steps.world import World

    device: Literal["cuda", "cpu"] = "cuda" if torch.cuda.is_available() else "cpu"
    config = TrainingConfig(
        max_length=job.row_tokens,
        gradient_checkpointing=job.checkpointing,
        device=device,
        attn_implementation=job.attention,
        sharding=job.sharding,
    )
    world = World.join(device)
    with clock() as loading:
        base = random_base(SHAPES[job.shape], config, world)
        if job.held == "dequantized":
            base = hold_dequantized(base, compute_dtype(device))
        model = make_trainable(base, config, world)
    rows = [random_row(number, job.row_tokens) for number in range(job.rows_per_step * 2)]
    epochs = job.steps * job.rows_per_step / len(rows)
    schedule = Schedule(len(rows), job.rows_per_step, epochs, warmup_ratio=0.1, peak_rate=1e-4, seed=0)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # before a row is recorded as a graph, which keeps its memory
    graphs = mock.patch.object(TrainingConfig, "uses_cuda_graphs", return_value=False)
    with graphs if job.launched else contextlib.nullcontext():
        loop = Loop(model, rows, schedule, config, world)
    seconds = seconds_per_step(loop, job.steps - WARM_UP, warm_up=WARM_UP)
    communication = _communication(loop, job.trace) if device == "cuda" and world.size > 1 else 0.0
    peak = torch.tensor([torch.cuda.max_memory_allocated() if device == "cuda" else 0.0], device=world.device)
    if world.size > 1:
        torch.distributed.all_reduce(peak, op=torch.distributed.ReduceOp.MAX)
    if world.is_rank0:
        tokens = sum(rows[row].size.tokens for row in schedule.rows_of(0))
        found = {
            "tokens_per_second": round(tokens / seconds),
            "seconds_per_step": round(seconds, 3),
            "peak_gib": round(peak.item() / GIB, 2),
            "communication": round(communication, 4),
            "load_s": round(loading.seconds, 1),
        }
        hand_back(dataclasses.asdict(job) | found)
    loop.engine.close()
    world.leave()


def _communication(loop: Loop, folder: str | None) -> float:
    """Return the share of one step's time in which NCCL kernels run, and write the trace of the step to `folder`."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace, clock() as took:
        loop._step(0, stop=False)  # noqa: SLF001 - the benchmark measures single steps
        torch.cuda.synchronize()
    if folder and loop.world.is_rank0:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"{loop.config.sharding}-{time.time():.0f}.json.gz"
        trace.export_chrome_trace(str(Path(folder) / name))
    nccl = sum(event.device_time_total for event in trace.key_averages() if "nccl" in event.key.lower())
    return float(nccl / 1e6 / took.seconds)


def runs(options: argparse.Namespace, gpus: int) -> None:
    """Run the trainer on one and several GPUs, kill a run and resume it on one GPU, then merge and verify."""
    import sqlquarry as sq

    place = Path(options.work)
    base, records = make_base(options.run_shape, place / "base"), toy_records()
    config = sq.TrainingConfig(
        num_train_epochs=1,
        records_per_step=32,
        max_length=768,
        gradient_checkpointing=True,
        learning_rate=2e-4,
        save_steps=4,
        attn_implementation=options.attention,
        sharding="full",
    )

    def train(name: str, processes: int, trainer: sq.QLoRAFSDPTrainer) -> Path:
        with clock() as took:
            adapter = trainer.train(records, output_dir=place / name, processes=processes)
        run = adapter.manifest.provenance["run"]
        print(json.dumps({"run": name, "wall_s": round(took.seconds, 1), **run}), flush=True)
        return adapter.path

    trainer = sq.QLoRAFSDPTrainer(base, config=config)
    single, several = train("one", 1, trainer), train("several", gpus, trainer)
    compare(f"one GPU and {gpus}", single, several)
    kill_one(trainer, records, place / "killed", gpus)
    resumed = train("killed", 1, trainer)
    compare(f"one GPU, and killed on {gpus}, resumed on one", single, resumed)
    adapter = sq.AdapterCheckpoint.load(several)
    with clock() as took:
        merged = sq.AdapterMerger().merge(adapter, place / "merged")
    print(json.dumps({"merged_s": round(took.seconds, 1)}), flush=True)
    with clock() as took:
        print(str(sq.AdapterMerger().verify(records[:2], adapter, merged)), flush=True)
    print(json.dumps({"verified_s": round(took.seconds, 1)}), flush=True)
    whole = sq.QLoRAFSDPTrainer(base, config=dataclasses.replace(config, sharding="none"))
    compare(f"one GPU and {gpus} with the whole base each", single, train("whole", gpus, whole))
    compare("one GPU, and the same again", single, train("one-again", 1, trainer))


def compare(name: str, one: Path, other: Path) -> None:
    """Print the difference between two adapters of the same records."""
    import torch
    from safetensors.torch import load_file

    mine, theirs = (load_file(path / "adapter_model.safetensors") for path in (one, other))
    change = torch.cat([(mine[key] - theirs[key]).flatten() for key in mine]).norm()
    size = torch.cat([value.flatten() for key, value in mine.items() if "lora_B" in key]).norm()
    losses = [[entry["loss"] for entry in read_jsonl(path / "training_log.jsonl")] for path in (one, other)]
    gap = max(abs(a - b) for a, b in zip(*losses, strict=True))
    found = {"compared": name, "steps": len(losses[0]), "difference": f"{change / size:.2e} of the update's norm"}
    print(json.dumps({**found, "largest_loss_difference": gap}), flush=True)


def kill_one(trainer: sq.QLoRAFSDPTrainer, records: list[sq.Record], output: Path, gpus: int) -> None:
    """Start a run on several GPUs, kill one of its processes, and print the time that the others take to end."""
    process = multiprocessing.get_context("spawn").Process(
        target=trainer.train, args=(records,), kwargs={"output_dir": output, "processes": gpus}
    )
    process.start()
    wait_for_steps(output, 9, process.is_alive)
    assert process.pid is not None
    (launcher,) = _programs_below(process.pid)
    os.kill(_programs_below(launcher)[-1], signal.SIGKILL)
    with clock() as took:
        process.join()
    print(json.dumps({"killed_one_of": gpus, "all_ended_after_s": round(took.seconds, 1)}), flush=True)


def _programs_below(process: int) -> list[int]:
    """Return the ids of the training processes, torchrun or workers, that a process started."""
    command = ["pgrep", "--parent", str(process), "--full", "sqlquarry.training"]
    return [int(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()]


def _machine() -> dict[str, object]:
    """Return the versions of the training libraries, and the GPUs."""
    import torch

    versions = {name: importlib.import_module(name).__version__ for name in ("transformers", "peft", "bitsandbytes")}
    found: dict[str, object] = {"torch": torch.__version__, **versions, "gpus": torch.cuda.device_count()}
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["card"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return found


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--shapes", default="8b")
    parser.add_argument("--run-shape", default="8b", help="shape of the model on disk for `runs`")
    parser.add_argument(
        "--gpus", help="comma-separated numbers of GPUs (default: all powers of two that are available)"
    )
    parser.add_argument(
        "--sharding", default="full,none", help="base split across the GPUs (full) or complete on each (none)"
    )
    parser.add_argument("--held", default="4bit,dequantized")
    parser.add_argument("--checkpointing", default="on", help="checkpointing of activations: on, off or on,off")
    parser.add_argument("--row-tokens", type=int, default=3072)
    parser.add_argument("--attention", default="auto", choices=["auto", "sdpa", "flex_attention"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows-per-step", type=int, default=8)
    parser.add_argument("--trace", help="folder for a Chrome trace of a step, if several GPUs train")
    parser.add_argument(
        "--launched", action="store_true", help="launch kernels one by one, as with dropout, instead of CUDA graphs"
    )
    parser.add_argument("--only", default="speed,runs")
    parser.add_argument("--work", default="/dev/shm/scaling")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
