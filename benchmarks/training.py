"""Compares the speed and memory of QLoRA by TRL, TRL with Liger, Unsloth and SQLQuarry on one GPU.

    python benchmarks/training.py                                 8B shape, rows of 3,072 tokens, about 9 minutes
    python benchmarks/training.py --long --only ours-long         rows of 8,192 tokens
    python benchmarks/training.py --report results.jsonl          print the table again
    python benchmarks/training.py --tiny                          try it out, also without a GPU

Every contender trains a random Llama in a process of its own (see benchmarks/training_contenders.py). Those whose
packages are missing are skipped. Each result is appended to a JSON Lines file. A contender with a result in that file
is not measured again, so a benchmark that was interrupted continues with the same command.

The limit is arithmetic. With N parameters in matrix products (linear layers and head), a token of a frozen base costs
2N operations forward and 2N backward, because only the gradient of the inputs is computed. Recomputation adds 2N. The
adapter (1 %) and attention are left out. The GPU's speed is that of a bf16 product of 8,192 x 8,192 matrices in the
same run. An H200 reaches about 790e12 operations per second, and an 8B Llama has N = 7.5e9. So its limit is 26,300
tokens/s, or 17,500 with recomputation. SQLQuarry computes the head for answer tokens only, which its limit ignores.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from common import SHAPES, LlamaShape, argument_parser, package_versions, read_jsonl, run_apart
from training_contenders import CONTENDERS, Job, work

PACKAGES = ("torch", "triton", "transformers", "peft", "bitsandbytes", "trl", "liger_kernel", "unsloth")
STARTED = time.monotonic()


def main() -> None:
    options = _options()
    if options.report:
        print_report([result for path in options.report for result in read_jsonl(path)])
        return
    job = Job(str(options.directory.resolve()), options.steps, options.warm_up, options.tiny)
    if options.worker:
        work(options.worker, job)
        return
    known = {result["contender"] for result in _read(options.results) if "failed" not in result}
    names = [name for name in _chosen(options) if name not in known]
    if names:
        measure(names, job, options)
    print_report(_read(options.results))


def measure(names: Sequence[str], job: Job, options: argparse.Namespace) -> None:
    """Measure contenders one after the other and append each result to the file."""
    os.environ.setdefault("HF_HUB_OFFLINE", "1")  # the base is on the disk, and no library has to ask the hub
    if not (job.base / "tokenizer_config.json").exists():
        say("writing the base model")
        _run("make", job, options)
    about = _machine() | {"matmul_flops": _run("products", job, options), "steps": job.steps, "warm_up": job.warm_up}
    say(f"matrix products: {about['matmul_flops'] / 1e12:.0f} TFLOP/s on {about['gpu']}")
    for name in names:
        contender = CONTENDERS[name]
        if time.monotonic() - STARTED > options.stop_after:
            say(f"{name} is left for the next call, because {options.stop_after} s have passed")
            continue
        if contender.missing:
            say(f"{name} is skipped: {', '.join(contender.missing)} is not installed")
            continue
        say(f"{name}: {contender.title}")
        result = {"contender": name, "row_tokens": job.row_tokens(contender), "tiny": job.tiny, **about}
        try:
            result |= _run(name, job, options)
            say(f"{name}: {result['tokens_per_second']:,.0f} tokens/s in {result['peak_gib']:.1f} GiB")
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            result["failed"] = str(error)[-200:]
            say(f"{name} failed. Its error is above.")
        with options.results.open("a", encoding="utf-8") as file:
            file.write(json.dumps(result) + "\n")


def print_report(results: Iterable[Mapping[str, Any]]) -> None:
    """Print the newest result of each contender as Markdown."""
    newest = {result["contender"]: result for result in results}
    if not newest:
        print("The benchmark has no results yet.")
        return
    print(
        "| contender | row, tokens | recomputed | tokens/s | records/s | peak GiB | share of the limit | "
        "load, s | compile and warm up, s |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for name in CONTENDERS:
        if name in newest and "failed" not in newest[name]:
            print(_line(name, newest[name]))
    print()
    for name, result in newest.items():
        if "failed" in result:
            print(f"{name} failed: {result['failed']}")
    about = {
        json.dumps({key: result[key] for key in ("gpu", "driver", "date", "versions")}) for result in newest.values()
    }
    for text in sorted(about):
        print(text)
    rates = sorted(result["matmul_flops"] / 1e12 for result in newest.values())
    print(f"Matrix products: {rates[0]:.0f} to {rates[-1]:.0f} TFLOP/s.")
    limits = [f"{limit(result, passes):,.0f}" for result in list(newest.values())[:1] for passes in (4, 6)]
    print(f"Limit in tokens/s: {limits[0]}, with recomputation {limits[1]}.")
    steps = {f"{result['steps']} measured steps after {result['warm_up']}" for result in newest.values()}
    print(f"{', '.join(sorted(steps))} warm-up steps.")


def _line(name: str, result: Mapping[str, Any]) -> str:
    contender = CONTENDERS[name]
    speed = result["tokens_per_second"]
    share = speed / limit(result, 4 + 2 * contender.recomputed)
    recomputed = "all" if contender.recomputed else "none"
    records = speed / result["record_tokens"]
    return (
        f"| {contender.title} | {result['row_tokens']:,} | {recomputed} | {speed:,.0f} | {records:,.0f} | "
        f"{result['peak_gib']:.1f} | {share:.0%} | {result['load_s']:.0f} | {result['warm_up_s']:.0f} |"
    )


def limit(result: Mapping[str, Any], passes: float) -> float:
    """Return the tokens per second if the GPU did nothing but the base's matrix products."""
    return float(result["matmul_flops"] / (passes * matmul_parameters(SHAPES["tiny" if result["tiny"] else "8b"])))


def matmul_parameters(shape: LlamaShape) -> int:
    """Return the number of parameters of the linear layers and the head."""
    keys = shape.hidden_size // shape.num_attention_heads * shape.num_key_value_heads
    attention = 2 * shape.hidden_size * (shape.hidden_size + keys)
    mlp = 3 * shape.hidden_size * shape.intermediate_size
    return shape.num_hidden_layers * (attention + mlp) + shape.hidden_size * shape.vocab_size


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", file=sys.stderr, flush=True)


def _run(name: str, job: Job, options: argparse.Namespace) -> Any:
    arguments = [__file__, "--worker", name, "--directory", job.directory, *(["--tiny"] if job.tiny else [])]
    arguments += ["--steps", str(job.steps), "--warm-up", str(job.warm_up)]
    return run_apart(arguments, timeout_s=options.timeout)


def _chosen(options: argparse.Namespace) -> list[str]:
    if options.only:
        return list(options.only.split(","))
    return [name for name, contender in CONTENDERS.items() if options.long or not contender.is_long]


def _read(path: Path) -> list[dict[str, Any]]:
    return read_jsonl(path) if path.exists() else []


def _machine() -> dict[str, Any]:
    """Return the GPU, its driver, the date and the versions of the libraries, without using the GPU."""
    try:
        query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
        answer = subprocess.run(query, capture_output=True, text=True, check=True).stdout.splitlines()[0]
        gpu, driver = answer.split(", ")
    except (OSError, subprocess.CalledProcessError):
        gpu, driver = "a CPU", ""
    date = dt.datetime.now(dt.UTC).date().isoformat()
    return {"gpu": gpu, "driver": driver, "date": date, "versions": package_versions(PACKAGES)}


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--only", help=f"comma-separated list of {', '.join(CONTENDERS)}")
    parser.add_argument("--long", action="store_true", help="also measure rows of 8,192 tokens")
    parser.add_argument("--steps", type=int, default=10, help="measured steps of each contender")
    parser.add_argument("--warm-up", type=int, default=3, help="steps before them, which compile and allocate")
    parser.add_argument("--directory", type=Path, default=Path("/dev/shm/training-benchmark"), help="8B: 16 GB")
    parser.add_argument("--results", type=Path, default=Path("training-results.jsonl"))
    parser.add_argument("--report", type=Path, nargs="+", metavar="FILE", help="only print the table of these results")
    parser.add_argument("--timeout", type=float, default=240, help="seconds after which a contender is stopped")
    parser.add_argument(
        "--stop-after", type=float, default=float("inf"), help="seconds after which no further contender is started"
    )
    parser.add_argument("--tiny", action="store_true", help="a tiny model and short rows")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.only and (unknown := set(options.only.split(",")) - set(CONTENDERS)):
        parser.error(f"unknown contenders: {', '.join(sorted(unknown))}")
    return options


if __name__ == "__main__":
    main()
