"""What a plan forecasts and what a GPU measures, side by side: memory and time of one row, for random Llamas.

    python benchmarks/forecast.py FOLDER [SHAPE …]

Each configuration runs in a process of its own, with the trainer's own loop; FOLDER takes the models (8B: 16 GB).
Without a GPU, "tiny" tries this script; flex attention then fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    | {"num_key_value_heads": 2, "vocab_size": 49152, "tie_word_embeddings": True},
    "135M": {"hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9}
    | {"num_key_value_heads": 3, "vocab_size": 49152, "tie_word_embeddings": True},
    "1.7B": {"hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 24, "num_attention_heads": 32}
    | {"num_key_value_heads": 32, "vocab_size": 49152, "tie_word_embeddings": True},
    "8B": {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_attention_heads": 32}
    | {"num_key_value_heads": 8, "vocab_size": 128256, "tie_word_embeddings": False},
}
# Recomputation, attention, tokens of a row, answer tokens of its records of 200.
RUNS: list[dict[str, Any]] = [
    {"recompute": True, "attention": "sdpa", "tokens": 2048, "answers": 50},
    {"recompute": True, "attention": "sdpa", "tokens": 2048, "answers": 4},
    {"recompute": False, "attention": "sdpa", "tokens": 2048, "answers": 50},
    {"recompute": True, "attention": "flex", "tokens": 3072, "answers": 50},
    {"recompute": False, "attention": "flex", "tokens": 3072, "answers": 50},
    {"recompute": False, "attention": "flex", "tokens": 3072, "answers": 50, "hold_dequantized": True},
]
RECORD_TOKENS, STEPS = 200, 6


def main() -> None:
    place, names = Path(sys.argv[1]), sys.argv[2:] or ["135M", "1.7B", "8B"]
    print("| model | recompute | attention | tokens | answers | forecast GiB | measured | forecast s/row | measured |")
    print("|---|---|---|---|---|---|---|---|---|")
    for name in names:
        base = place / name
        subprocess.run([sys.executable, __file__, "save", name, str(base)], check=True)
        for run in RUNS:
            words = [sys.executable, __file__, "run", name, str(base), json.dumps(run)]
            ended = subprocess.run(words, check=False, stdout=subprocess.PIPE, text=True)
            if ended.returncode:
                print(f"| {name} | {run} failed |", flush=True)
                continue
            found = json.loads(ended.stdout.splitlines()[-1])
            held = " (held)" if run.get("hold_dequantized") else ""
            print(
                f"| {name}{held} | {'yes' if run['recompute'] else 'no'} | {run['attention']} | {found['tokens']:,} | "
                f"{found['answers']:,} | {found['planned_bytes'] / 2**30:.2f} | {found['bytes'] / 2**30:.2f} | "
                f"{found['planned_seconds']:.3f} | {found['seconds']:.3f} |",
                flush=True,
            )


def save(name: str, base: Path) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda" if torch.cuda.is_available() else "cpu"):
        model = LlamaForCausalLM(LlamaConfig(max_position_embeddings=8192, **SHAPES[name]))
    model.save_pretrained(base, max_shard_size="5GB")


def run(base: Path, wanted: dict[str, Any]) -> dict[str, Any]:
    import torch

    from sqlquarry.prompt import IGNORED_LABEL, Encoded
    from sqlquarry.training import TrainingConfig
    from sqlquarry.training.hardware import gpu_named
    from sqlquarry.training.loop import Loop
    from sqlquarry.training.memory import forecast_memory
    from sqlquarry.training.model import load_base, make_trainable
    from sqlquarry.training.packing import pack
    from sqlquarry.training.schedule import Schedule
    from sqlquarry.training.shape import ModelShape
    from sqlquarry.training.speed import row_seconds
    from sqlquarry.training.world import World

    cuda = torch.cuda.is_available()
    config = TrainingConfig(
        device="auto",
        gradient_checkpointing=wanted["recompute"],
        attention=wanted["attention"],
        max_sequence_tokens=wanted["tokens"],
        hold_dequantized=wanted.get("hold_dequantized", False),
    )
    generator = torch.Generator().manual_seed(0)
    examples = []
    for _ in range(STEPS * wanted["tokens"] // RECORD_TOKENS):
        ids = torch.randint(0, 40_000, (RECORD_TOKENS,), generator=generator).tolist()
        prompt = RECORD_TOKENS - wanted["answers"]
        examples.append(Encoded(ids, [IGNORED_LABEL] * prompt + ids[prompt:]))
    options = {"max_tokens": wanted["tokens"], "share_prefixes": False, "seed": 0}
    rows = pack(examples, list(range(len(examples))), **options)[:STEPS]
    sizes = [(len(row.input_ids), sum(label != IGNORED_LABEL for label in row.labels)) for row in rows]

    world = World(0, 1, 1, torch.device("cuda", 0) if cuda else torch.device("cpu"))
    model, _ = load_base(base, config, world)
    model = make_trainable(model, config, world)
    schedule = Schedule(rows=len(rows), rows_per_step=1, epochs=1, warmup_share=0.0, peak_rate=1e-5, seed=0)
    Loop(model, rows[:2], Schedule(2, 1, 1, 0.0, 1e-5, 0), config, world).run()  # compiles, warms up
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    outcome = Loop(model, rows, schedule, config, world).run()

    gpu, shape = gpu_named(torch.cuda.get_device_name()) if cuda else None, ModelShape.read(base)
    return {
        "tokens": sizes[0][0],
        "answers": sizes[0][1],
        "bytes": torch.cuda.max_memory_allocated() if cuda else 0,
        "seconds": outcome.seconds / outcome.steps,
        "planned_bytes": forecast_memory(shape, config, sizes, cuda=cuda).allocated,
        "planned_seconds": row_seconds(shape, config, *sizes[0], gpu=gpu),
    }


if __name__ == "__main__":
    if sys.argv[1] == "save":
        save(sys.argv[2], Path(sys.argv[3]))
    elif sys.argv[1] == "run":
        print(json.dumps(run(Path(sys.argv[3]), json.loads(sys.argv[4]))))
    else:
        main()
