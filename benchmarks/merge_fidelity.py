"""How much accuracy does merging cost? The same questions asked of the adapter on its 4-bit base and of merged models.

    python benchmarks/merge_fidelity.py BASE_MODEL TRAIN.jsonl… [--records 12000] [--questions 629]

Trains with QLoRA, merges into the dequantised base (ours) and into the original one (as the published recipe does), and
reports exact match with 95 % Wilson intervals. Runs on one GPU in minutes, on a CPU with small numbers.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path

import sqlquarry as sq


def main() -> None:
    options = _options()
    records = sq.Records(record for path in options.data for record in sq.load_records(path))
    train, test = records.split(test=options.questions, seed=42, group_by=None)
    train = train[: options.records]
    judge = sq.SQLJudge([sq.ExactGrader()])
    with tempfile.TemporaryDirectory(dir=options.work) as work:
        trainer = sq.QLoRAFSDPTrainer(
            options.base_model,
            config=sq.TrainingConfig(
                epochs=1,
                records_per_step=64,
                max_sequence_tokens=3072,
                learning_rate=1e-3,
                gradient_checkpointing=False,
            ),
        )
        adapter = trainer.train(train, output_dir=Path(work) / "adapter")
        print(json.dumps(adapter.manifest.provenance["run"]), flush=True)
        merged = {
            name: sq.AdapterMerger(name).merge(adapter, Path(work) / name) for name in ("dequantized", "original")
        }
        systems = {"adapter on its 4-bit base": sq.LocalModel.from_adapter(adapter, batch_size=256, max_tokens=96)}
        systems |= {
            f"merged, {name} base": sq.LocalModel.from_merged(model, batch_size=256, max_tokens=96)
            for name, model in merged.items()
        }
        for name, system in systems.items():
            started = time.monotonic()
            exact = judge.evaluate(system, test).accuracy()
            print(
                f"{name:28} exact match {exact.value:.1%} [{exact.low:.1%}, {exact.high:.1%}] n={exact.n}"
                f"  ({time.monotonic() - started:.0f} s)",
                flush=True,
            )


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_model")
    parser.add_argument("data", nargs="+")
    parser.add_argument("--records", type=int, default=12_000)
    parser.add_argument("--questions", type=int, default=629)
    parser.add_argument("--work", help="folder for adapters and models (default: the system's temporary one)")
    return parser.parse_args()


if __name__ == "__main__":
    main()
