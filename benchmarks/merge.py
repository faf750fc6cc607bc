"""Compares wall time, peak memory and throughput of SQLQuarry's merge, PEFT's merge, and a plain copy of the files.

    python benchmarks/merge.py                                         2 GB in the shapes of Llama, about a minute
    python benchmarks/merge.py --shape 8b --methods copy,ours          the shapes of Llama 3.1 8B, 16 GB
    python benchmarks/merge.py --quantized --methods ours,verify       merge into NF4 values and check the result

Each method runs in a separate process. Base and adapter are random and stay in the directory. `copy` is `cp`. The clock
starts after the imports and stops after a sync, so that no method leaves unwritten data to the next one.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import sqlquarry as sq
from common import (
    SHAPES,
    LlamaShape,
    argument_parser,
    clock,
    hand_back,
    peak_rss_kib,
    run_apart,
    save_random_llama,
)

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 16


def build(directory: Path, shape: LlamaShape, *, quantized: bool) -> None:
    """Write a base and an adapter with random weights."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    from sqlquarry.manifests import base_digest, write_manifest
    from sqlquarry.merging.storage.local import LocalDirectory
    from sqlquarry.merging.verification.examples import base_tokenizer
    from sqlquarry.quantization import QuantizationRecipe

    base, adapter = directory / "base", directory / "adapter"
    adapter.mkdir(parents=True)
    shapes = save_random_llama(base, shape.config())
    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet | {"<eos>": len(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    linear = {name.removesuffix(".weight"): size for name, size in shapes.items() if name.endswith("_proj.weight")}
    lora = {}
    for module, (rows, columns) in linear.items():
        lora[f"base_model.model.{module}.lora_A.weight"] = torch.randn(RANK, columns) * 0.02
        lora[f"base_model.model.{module}.lora_B.weight"] = torch.randn(rows, RANK) * 0.02
    save_file(lora, adapter / "adapter_model.safetensors")
    LoraConfig(r=RANK, lora_alpha=32, target_modules=LINEAR, task_type="CAUSAL_LM").save_pretrained(adapter)
    formatter = sq.PromptFormatter().bind(base_tokenizer(LocalDirectory(base)))
    formatter.save(adapter)
    recipe = QuantizationRecipe(modules=tuple(sorted(linear))) if quantized else None
    provenance = {
        "base_model": {"name": "random", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": formatter.fingerprint,
        "quantization": dataclasses.asdict(recipe) if recipe else None,
    }
    write_manifest(adapter, sq.AdapterCheckpoint.kind, provenance)


def ours(directory: Path, output: Path) -> None:
    sq.AdapterMerger().merge(sq.AdapterCheckpoint.load(directory / "adapter"), output)


def verify(directory: Path, _output: Path) -> None:
    adapter = sq.AdapterCheckpoint.load(directory / "adapter")
    print(sq.AdapterMerger().verify(sq.sample_records("test")[:2], adapter, directory / "ours"), file=sys.stderr)


def peft(directory: Path, output: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory / "base", dtype=torch.bfloat16, trust_remote_code=False)
    PeftModel.from_pretrained(model, directory / "adapter").merge_and_unload().save_pretrained(output)


def copy(directory: Path, output: Path) -> None:
    subprocess.run(["cp", "-r", str(directory / "base"), str(output)], check=True)


METHODS = {"copy": copy, "peft": peft, "ours": ours, "verify": verify}


def run(method: str, directory: Path) -> None:
    for library in {"copy": (), "peft": ("torch", "peft", "transformers")}.get(method, ("torch", "sqlquarry.merging")):
        importlib.import_module(library)
    os.sync()
    with clock() as took:
        METHODS[method](directory, directory / method)
        os.sync()
    usage = os.times()
    cpu = usage.user + usage.system + usage.children_user + usage.children_system
    numbers = {"wall_s": round(took.seconds, 2), "cpu_s": round(cpu, 2), "peak_rss_mb": peak_rss_kib() // 1024}
    hand_back({"method": method, **numbers})


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/merge-benchmark"))
    parser.add_argument("--shape", choices=SHAPES, default="2gb")
    parser.add_argument("--layers", type=int, help="number of layers (default: that of the shape)")
    parser.add_argument(
        "--hidden", type=int, help="hidden size, which scales the other widths (default: that of the shape)"
    )
    parser.add_argument("--vocabulary", type=int, help="size of the vocabulary (default: that of the shape)")
    parser.add_argument("--quantized", action="store_true", help="mark the adapter as trained on NF4 weights")
    parser.add_argument("--methods", default="copy,peft,ours", help=f"comma-separated list of {', '.join(METHODS)}")
    parser.add_argument("--repeat", type=int, default=1, help="number of runs of each method, in turn")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    directory = options.directory
    if options.method:
        run(options.method, directory)
        return
    shape = SHAPES[options.shape]
    if hidden := options.hidden:
        heads = {"num_attention_heads": hidden // 64, "num_key_value_heads": hidden // 256}
        shape = dataclasses.replace(shape, hidden_size=hidden, intermediate_size=hidden * 7 // 2, **heads)
    shape = dataclasses.replace(
        shape,
        num_hidden_layers=options.layers or shape.num_hidden_layers,
        vocab_size=options.vocabulary or shape.vocab_size,
    )
    if not (directory / "adapter/manifest.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        build(directory, shape, quantized=options.quantized)
    size = sum(file.stat().st_size for file in (directory / "base").glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB of weights")
    for method in options.methods.split(",") * options.repeat:
        shutil.rmtree(directory / method, ignore_errors=True)
        result = run_apart([__file__, "--directory", str(directory), "--method", method])
        print(result | {"mb_per_s": round(size / 1e6 / result["wall_s"])}, flush=True)


if __name__ == "__main__":
    main()
