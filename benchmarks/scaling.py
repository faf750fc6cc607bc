"""QLoRA under FSDP2 on 1, 2, 4, … GPUs: speed, memory, time spent in communication; then interruption and merging.

    python benchmarks/scaling.py [--shapes 8b,70b] [--gpus 1,2] [--steps 10] [--only speed,runs]

`speed`: random weights made on the GPUs, rows like those of packed records, the same rows on every
number of GPUs. Weights are held in 4 bits, or as the 4-bit values in bf16 ("dequantized"), in parts on all GPUs (FSDP2)
or whole on each. `runs`: the trainer itself on a model on disk: the adapter of several GPUs beside that of one, a
killed process, a resume on one, merge and check. Prints one JSON object per measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

SHAPES = {  # hidden, intermediate, layers, heads, key/value heads: Llama 3.1 8B and 70B; a small one to try this script
    "8b": (4096, 14336, 32, 32, 8),
    "70b": (8192, 28672, 80, 64, 8),
    "135m": (576, 1536, 30, 9, 3),
    "1b": (2048, 8192, 16, 32, 8),
    "tiny": (128, 256, 2, 4, 4),
}
ROWS_PER_STEP = 8
VOCABULARY = 128_256


def main() -> None:
    options = _options()
    if options.worker:
        work(json.loads(options.worker))
        return
    import torch

    available = torch.cuda.device_count()
    gpus = [int(count) for count in options.gpus.split(",")] if options.gpus else [1, 2, 4, 8]
    gpus = [count for count in gpus if count <= (available or 2)]  # without a GPU: two processes, to try this script
    print(json.dumps(_machine()), flush=True)
    if "speed" in options.only:
        speeds(options, gpus)
    if "runs" in options.only:
        runs(options, max(gpus))


def speeds(options: argparse.Namespace, gpus: list[int]) -> None:
    """Tokens per second for every shape, number of GPUs and way to hold the weights."""
    for shape in options.shapes.split(","):
        for held in options.held.split(","):
            for checkpointing in [word == "on" for word in options.checkpointing.split(",")]:
                first: float | None = None
                for count, sharding in [(number, kind) for number in gpus for kind in shardings(options, number)]:
                    job = {
                        "sharding": sharding,
                        "shape": shape,
                        "held": held,
                        "checkpointing": checkpointing,
                        "steps": options.steps,
                        "attention": options.attention,
                        "rows_per_step": options.rows_per_step,
                        "row_tokens": options.row_tokens,
                        "trace": options.trace,
                        "launched": options.launched,
                    }
                    found = _torchrun(count, ["benchmarks/scaling.py", "--worker", json.dumps(job)])
                    if found is None:
                        print(json.dumps({**job, "gpus": count, "failed": True}), flush=True)
                        continue
                    first = first or found["tokens_per_second"] / count
                    efficiency = found["tokens_per_second"] / count / first
                    print(json.dumps({**found, "gpus": count, "efficiency": round(efficiency, 4)}), flush=True)


def shardings(options: argparse.Namespace, gpus: int) -> list[str]:
    """The ways to be measured of placing the base on so many GPUs; on one there is one."""
    kinds: list[str] = options.sharding.split(",")
    return kinds if gpus > 1 else kinds[:1]


def work(job: dict[str, Any]) -> None:
    """One process of a measurement; the leading one prints what was measured."""
    import torch

    from sqlquarry.training.config import TrainingConfig
    from sqlquarry.training.steps.adapted_model import make_trainable
    from sqlquarry.training.steps.loop import Loop
    from sqlquarry.training.steps.schedule import Schedule
    from sqlquarry.training.steps.world import World

    device = "cuda" if torch.cuda.is_available() else "cpu"
    if job["launched"]:
        TrainingConfig.uses_cuda_graphs = lambda *_, **__: False  # type: ignore[method-assign]  # in this process only
    config = TrainingConfig(
        max_length=job["row_tokens"],
        gradient_checkpointing=job["checkpointing"],
        device=device,
        attn_implementation=job["attention"],
        sharding=job["sharding"],
    )
    world = World.join(device)
    started = time.monotonic()
    model = make_trainable(random_base(job["shape"], job["held"], config, world), config, world)
    ready = time.monotonic() - started
    rows_per_step = job["rows_per_step"]
    rows = [random_row(number, job["row_tokens"]) for number in range(rows_per_step * 2)]
    schedule = Schedule(len(rows), rows_per_step, job["steps"] * rows_per_step / len(rows), 0.1, 1e-4, seed=0)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()  # before a row is recorded as a graph, which keeps what it needs
    loop = Loop(model, rows, schedule, config, world)
    warm_up = 2  # the first steps compile and allocate
    for step in range(warm_up):
        loop._step(step, stop=False)  # noqa: SLF001 - one step is what is measured
    if device == "cuda":
        torch.cuda.synchronize()
    started = time.monotonic()
    for step in range(warm_up, job["steps"]):
        loop._step(step, stop=False)  # noqa: SLF001 - see above
    if device == "cuda":
        torch.cuda.synchronize()
    seconds = (time.monotonic() - started) / (job["steps"] - warm_up)
    communication = _communication(loop, job["trace"]) if device == "cuda" and world.size > 1 else 0.0
    peak = torch.tensor([torch.cuda.max_memory_allocated() if device == "cuda" else 0.0], device=world.device)
    if world.size > 1:
        torch.distributed.all_reduce(peak, op=torch.distributed.ReduceOp.MAX)
    if world.is_rank0:
        tokens = sum(len(rows[row].input_ids) for row in schedule.rows_of(0))
        found = job | {
            "tokens_per_second": round(tokens / seconds),
            "seconds_per_step": round(seconds, 3),
            "peak_gib": round(peak.item() / 2**30, 2),
            "communication": round(communication, 4),
            "load_s": round(ready, 1),
        }
        print("RESULT " + json.dumps(found), flush=True)
    loop.engine.close()
    world.leave()


def _communication(loop: Any, folder: str | None) -> float:
    """Share of one step's time in which NCCL kernels ran, beside computation or not; its trace goes to `folder`."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]) as trace:
        started = time.monotonic()
        loop._step(0, stop=False)  # noqa: SLF001 - one step is what is measured
        torch.cuda.synchronize()
        seconds = time.monotonic() - started
    if folder and loop.world.is_rank0:
        Path(folder).mkdir(parents=True, exist_ok=True)
        name = f"{loop.config.sharding}-{time.time():.0f}.json.gz"
        trace.export_chrome_trace(str(Path(folder) / name))
    nccl = sum(event.device_time_total for event in trace.key_averages() if "nccl" in event.key.lower())
    return nccl / 1e6 / seconds


def random_base(shape: str, held: str, config: Any, world: Any) -> Any:
    """A Llama of random weights made in place: no file, and never more than one layer in 16 bits where it holds 4."""
    import bitsandbytes
    import torch
    from transformers import AutoModelForCausalLM, LlamaConfig

    from sqlquarry.pretrained import compute_dtype
    from sqlquarry.quantization import QuantizationRecipe, hold_dequantized

    hidden, intermediate, layers, heads, kv = SHAPES[shape]
    dtype = compute_dtype(world.device.type)
    recipe = QuantizationRecipe(load_dtype=str(dtype).removeprefix("torch."))
    flex = config.uses_flex_attention(cuda=world.device.type == "cuda")
    llama = LlamaConfig(
        vocab_size=VOCABULARY if shape != "tiny" else 445,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=8192,
        rope_theta=500_000.0,
        tie_word_embeddings=False,
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            llama,
            dtype=dtype,
            attn_implementation="flex_attention" if flex else "sdpa",
            trust_remote_code=False,
        )
    torch.manual_seed(0)  # the same weights on every process
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            weight = torch.randn(module.weight.shape, dtype=dtype, device=world.device).mul_(0.02)
            layer = bitsandbytes.nn.Linear4bit(
                *(module.in_features, module.out_features, False, dtype, True, "nf4", torch.float32), device="meta"
            )
            layer.weight = recipe.pack(weight, layer)
            layer.support_avx512bf16_for_cpu = False
            model.set_submodule(name, layer)
    for name, parameter in list(model.named_parameters()):
        if parameter.device.type == "meta":
            value = torch.ones(parameter.shape, dtype=dtype, device=world.device)
            if parameter.dim() > 1:
                value.normal_(std=0.02)
            owner, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(owner), leaf, torch.nn.Parameter(value, requires_grad=False))
    model.model.rotary_emb = type(model.model.rotary_emb)(config=llama).to(world.device)
    model.is_loaded_in_4bit = True
    return hold_dequantized(model, dtype) if held == "dequantized" else model


def random_row(seed: int, row_tokens: int) -> Any:
    """A row as packing makes them: schemas of 90 tokens, each with two questions of 51."""
    from sqlquarry.prompt import IGNORED_LABEL
    from sqlquarry.training.encoding.packing import PackedRow

    dice = random.Random(seed)
    row = PackedRow([], [], [], [], [], 0)
    family = 0
    while len(row.input_ids) < row_tokens:
        for suffix, (tokens, answer) in enumerate([(90, 0), (51, 25), (51, 25)]):
            ids = [dice.randrange(400) for _ in range(min(tokens, row_tokens - len(row.input_ids)))]
            start = 0 if suffix == 0 else 90
            row.input_ids.extend(ids)
            learnt = answer if answer < len(ids) else 0
            row.labels.extend([IGNORED_LABEL] * (len(ids) - learnt) + ids[len(ids) - learnt :])
            row.positions.extend(range(start, start + len(ids)))
            row.families.extend([family] * len(ids))
            row.suffixes.extend([suffix] * len(ids))
        family += 1
    return row


def runs(options: argparse.Namespace, gpus: int) -> None:
    """The trainer itself: equal on one and several GPUs, killed and resumed on one, merged and verified."""
    import torch
    from safetensors.torch import load_file

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

    def train(name: str, processes: int, **changes: Any) -> Path:
        started = time.monotonic()
        changed = dataclasses.replace(config, **changes)
        adapter = sq.QLoRAFSDPTrainer(base, config=changed).train(records, output_dir=place / name, processes=processes)
        run = adapter.manifest.provenance["run"]
        print(json.dumps({"run": name, "wall_s": round(time.monotonic() - started, 1), **run}), flush=True)
        return adapter.path

    def compare(name: str, one: Path, other: Path) -> None:
        mine, theirs = (load_file(path / "adapter_model.safetensors") for path in (one, other))
        change = torch.cat([(mine[key] - theirs[key]).flatten() for key in mine]).norm()
        size = torch.cat([value.flatten() for key, value in mine.items() if "lora_B" in key]).norm()
        losses = [[json.loads(line)["loss"] for line in (path / "training_log.jsonl").open()] for path in (one, other)]
        gap = max(abs(a - b) for a, b in zip(*losses, strict=True))
        found = {"compared": name, "steps": len(losses[0]), "difference": f"{change / size:.2e} of the update's norm"}
        print(json.dumps({**found, "largest_loss_difference": gap}), flush=True)

    single, several = train("one", 1), train("several", gpus)
    compare(f"one GPU and {gpus}", single, several)
    kill_one(base, records, config, place, gpus)
    resumed = train("killed", 1)
    compare(f"one GPU, and killed on {gpus}, resumed on one", single, resumed)
    adapter = sq.AdapterCheckpoint.load(several)
    started = time.monotonic()
    merged = sq.AdapterMerger().merge(adapter, place / "merged")
    print(json.dumps({"merged_s": round(time.monotonic() - started, 1)}), flush=True)
    started = time.monotonic()
    print(str(sq.AdapterMerger().verify(records[:2], adapter, merged)), flush=True)
    print(json.dumps({"verified_s": round(time.monotonic() - started, 1)}), flush=True)
    compare(f"one GPU and {gpus} with the whole base each", single, train("whole", gpus, sharding="none"))
    compare("one GPU, and the same again", single, train("one-again", 1))


def kill_one(base: Path, records: Any, config: Any, place: Path, gpus: int) -> None:
    """Start a run on several GPUs, end one of its processes by SIGKILL, and say how long the others took to end."""
    script = (
        "import pickle, sys; trainer, records, output, processes = pickle.load(open(sys.argv[1], 'rb'));"
        "trainer.train(records, output_dir=output, processes=processes)"
    )
    import pickle

    import sqlquarry as sq

    (place / "job.pickle").write_bytes(
        pickle.dumps((sq.QLoRAFSDPTrainer(base, config=config), records, place / "killed", gpus))
    )
    process = subprocess.Popen([sys.executable, "-c", script, str(place / "job.pickle")])
    log = place / "killed" / "training_log.jsonl"
    while not log.exists() or len(log.read_text().splitlines()) < 9:
        time.sleep(0.05)
    workers = subprocess.run(["pgrep", "-f", "sqlquarry.training"], capture_output=True, text=True, check=True).stdout
    # The launcher's command line matches too and started first; the last worker has the highest number.
    os.kill(int(workers.split()[-1]), signal.SIGKILL)
    killed = time.monotonic()
    process.wait()
    print(json.dumps({"killed_one_of": gpus, "all_ended_after_s": round(time.monotonic() - killed, 1)}), flush=True)


def make_base(shape: str, directory: Path) -> Path:
    """A random Llama on disk with the tests' small tokenizer."""
    import torch
    from safetensors.torch import save_file

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from transformers import AutoModelForCausalLM, LlamaConfig

    from conftest import tiny_tokenizer

    if (directory / "config.json").exists():
        return directory
    hidden, intermediate, layers, heads, kv = SHAPES[shape]
    tokenizer = tiny_tokenizer()
    llama = LlamaConfig(
        vocab_size=len(tokenizer) if shape == "tiny" else VOCABULARY,
        hidden_size=hidden,
        intermediate_size=intermediate,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=kv,
        max_position_embeddings=8192,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=tokenizer.bos_token_id,
        architectures=["LlamaForCausalLM"],
    )
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(llama, dtype=torch.bfloat16, trust_remote_code=False)
    directory.mkdir(parents=True)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)
    index: dict[str, str] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        group = ".".join(name.split(".")[:3]) if ".layers." in name else "rest"
        groups.setdefault(group, {})[name] = parameter.shape
    for number, (_, shapes) in enumerate(groups.items()):
        file = f"model-{number:05d}.safetensors"
        tensors = {
            name: (
                torch.ones(size, dtype=torch.bfloat16)
                if len(size) == 1
                else torch.randn(size, generator=generator, device=device).mul_(0.02).to("cpu", torch.bfloat16)
            )
            for name, size in shapes.items()
        }
        save_file(tensors, directory / file, metadata={"format": "pt"})
        index |= dict.fromkeys(tensors, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    llama.dtype = torch.bfloat16
    llama.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def toy_records() -> Any:
    import sqlquarry as sq

    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
    from conftest import toy_examples

    return [sq.Record(**example) for example in toy_examples(832)]  # 42 rows of 768 tokens, two a step


def _torchrun(processes: int, arguments: list[str]) -> dict[str, Any] | None:
    from sqlquarry.training.launch import TORCHRUN

    command = [sys.executable, *TORCHRUN, f"--nproc-per-node={processes}", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    lines = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(lines[0].removeprefix("RESULT ")) if lines else None


def _machine() -> dict[str, Any]:
    import importlib

    import torch

    versions = {name: importlib.import_module(name).__version__ for name in ("transformers", "peft", "bitsandbytes")}
    found = {"torch": torch.__version__, **versions, "gpus": torch.cuda.device_count()}
    if torch.cuda.is_available():
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        found["card"] = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
    return found


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="8b")
    parser.add_argument("--run-shape", default="8b", help="shape of the model on disk for `runs`")
    parser.add_argument("--gpus", help="numbers of GPUs, with commas; all powers of two that there are")
    parser.add_argument("--sharding", default="full,none", help="the base in parts (full), or whole on each GPU (none)")
    parser.add_argument("--held", default="4bit,dequantized")
    parser.add_argument("--checkpointing", default="on", help="of activations: on, off or on,off")
    parser.add_argument("--row-tokens", type=int, default=3072)
    parser.add_argument("--attention", default="auto", choices=["auto", "sdpa", "flex_attention"])
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rows-per-step", type=int, default=ROWS_PER_STEP)
    parser.add_argument("--trace", help="folder that receives a Chrome trace of a step, where several GPUs train")
    parser.add_argument("--launched", action="store_true", help="kernel by kernel, as with dropout: no CUDA graphs")
    parser.add_argument("--only", default="speed,runs")
    parser.add_argument("--work", default="/dev/shm/scaling")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
