"""Measures the accuracy that merging costs, by asking merged models and the adapter on its base the same questions.

    python benchmarks/merge_fidelity.py BASE_MODEL TRAIN.jsonl… [--records 6000] [--questions 629]
    python benchmarks/merge_fidelity.py BASE_MODEL TRAIN.jsonl… --records 40 --questions 8 --measured 4    on a CPU

It trains with QLoRA, merges into the dequantized base (as SQLQuarry does) and into the original one (the published
recipe), and reports exact match. Then it measures the error of each base and dtype over the tokens of gold answers.
It takes minutes on one GPU. With `--work`, a second run reuses the adapter and the models.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Literal

import sqlquarry as sq
from common import argument_parser, clock, same_text

Base = Literal["dequantized", "original"]
Dtype = Literal["bfloat16", "float16", "float32"]
STARTED = time.monotonic()
MERGES: dict[str, tuple[Base, Dtype]] = {
    "dequantized, bfloat16": ("dequantized", "bfloat16"),
    "dequantized, float16": ("dequantized", "float16"),
    "dequantized, float32": ("dequantized", "float32"),
    "original, bfloat16": ("original", "bfloat16"),
    "original, float32": ("original", "float32"),
}
ANSWERING = ("dequantized, bfloat16", "original, bfloat16")


def say(text: str) -> None:
    print(f"[{time.monotonic() - STARTED:4.0f} s] {text}", flush=True)


@contextmanager
def timed(doing: str) -> Iterator[None]:
    say(f"{doing} …")
    with clock() as took:
        yield
    say(f"{doing}: {took.seconds:.1f} s")


def main() -> None:
    options = _options()
    with timed("reading records"):
        records = sq.Records(record for path in options.data for record in sq.load_records(path))
        train, test = records.split(test_size=options.questions, seed=42, group_by=None)
        train = train[: options.records]
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(options.work or temporary)
        with timed(f"training on {len(train)} records"):
            adapter = sq.QLoRAFSDPTrainer(options.base_model, config=_config(options)).train(
                train, output_dir=work / "adapter"
            )
        say(json.dumps(adapter.manifest.provenance["run"]))
        merged = {}
        for name in ANSWERING:
            with timed(f"merging: {name}"):
                merged[name] = merge(adapter, name, work)
        answer(adapter, merged, test, options.batch)
        if options.measured:
            measure(adapter, work, test[: options.measured])


def _config(options: argparse.Namespace) -> sq.TrainingConfig:
    return sq.TrainingConfig(
        num_train_epochs=1,
        records_per_step=64,
        # A small model spends its time launching kernels, so long rows are faster. Their mask grows quadratically.
        max_length=options.row_tokens,
        learning_rate=1e-3,
        gradient_checkpointing=False,
        hold_dequantized=True,  # the same values, which are then not unpacked for every row
    )


def merge(adapter: sq.AdapterCheckpoint, name: str, work: Path) -> sq.MergedModel:
    base, dtype = MERGES[name]
    return sq.AdapterMerger(base=base, dtype=dtype).merge(adapter, work / f"{base}-{dtype}")


def answer(
    adapter: sq.AdapterCheckpoint, merged: dict[str, sq.MergedModel], test: Sequence[sq.Record], batch: int
) -> None:
    """Report the exact match of every system, and the questions that it loses and wins against the adapter."""
    ask = partial(sq.LocalModel, batch_size=batch, max_tokens=96)
    systems = {"adapter on its 4-bit base": partial(ask, adapter)}
    systems |= {f"merged: {name}": partial(ask, model) for name, model in merged.items()}
    reference: list[bool] = []
    for name, load in systems.items():
        with timed(f"asking {name}"):
            system = load()
            right: list[bool] = []
            for start in range(0, len(test), batch):
                asked = test[start : start + batch]
                answers = system.generate(asked)
                right += [same_text(one.text, record.sql or "") for one, record in zip(answers, asked, strict=True)]
                say(f"  {len(right)} of {len(test)} answers")
        reference = reference or right
        lost = sum(was and not now for was, now in zip(reference, right, strict=True))
        won = sum(now and not was for was, now in zip(reference, right, strict=True))
        say(f"{name}: exact match {sum(right) / len(right):.2%} of {len(right)} (-{lost} +{won})")


def measure(adapter: sq.AdapterCheckpoint, work: Path, records: Sequence[sq.Record]) -> None:
    """Print the table of docs/merging.md with the error of each base and dtype."""
    say("merged into            | error of base weights | mean KL (nats) | same greedy token | likelihood lost (nats)")
    for name, (base, dtype) in MERGES.items():
        found = sq.AdapterMerger(base=base).verify(records, adapter, merge(adapter, name, work)).agreement
        lost = found.adapter_log_likelihood - found.answer_log_likelihood
        say(
            f"{name:22} | {weight_error(adapter, base, dtype):.1e} | {found.kl:.1e} | {found.greedy_agreement:.2%} of "
            f"{found.answer_tokens} | {lost:+.1e}"
        )


def weight_error(adapter: sq.AdapterCheckpoint, base: Base, dtype: Dtype) -> float:
    """Return ‖W - W4‖ / ‖W4‖ over all quantized modules, where W is the base of the merge and W4 that of training."""
    import torch
    from safetensors.torch import load_file

    from sqlquarry.quantization import QuantizationRecipe

    provenance = adapter.manifest.provenance
    recipe = QuantizationRecipe(**provenance["quantization"])
    files = sorted(Path(provenance["base_model"]["path"]).glob("*.safetensors"))
    weights = dict(chain.from_iterable(load_file(file).items() for file in files))
    change = size = 0.0
    for module in recipe.modules:
        trained_on = recipe.round_trip(weights[f"{module}.weight"], module)
        merged_into = (trained_on if base == "dequantized" else weights[f"{module}.weight"]).to(getattr(torch, dtype))
        change += (merged_into.double() - trained_on.double()).square().sum().item()
        size += trained_on.double().square().sum().item()
    return math.sqrt(change / size)


def _options() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("base_model")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--records", type=int, default=6_000)
    parser.add_argument("--questions", type=int, default=629)
    parser.add_argument(
        "--measured", type=int, default=16, help="held-out records for the table of bases (0: no table)"
    )
    parser.add_argument("--batch", type=int, default=256, help="number of questions per batch")
    parser.add_argument("--row-tokens", type=int, default=8192, help="length of a packed row in training")
    parser.add_argument("--work", help="folder for adapters and models (default: a temporary one)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
