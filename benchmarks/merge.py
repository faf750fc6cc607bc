"""Wall time, peak memory and throughput of our merge, PEFT's merge, and a plain copy of the same files.

    python benchmarks/merge.py --layers 8 --hidden 2048 --directory /tmp/merge-benchmark

Each runs in a process of its own; the base and adapter are random, in Llama's shapes, and stay in the directory.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]


def build(directory: Path, layers: int, hidden: int, vocabulary: int) -> None:
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, LlamaConfig

    from sqlquarry import AdapterCheckpoint, PromptFormatter
    from sqlquarry.artifacts import base_digest, write_manifest

    config = LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=hidden,
        intermediate_size=hidden * 7 // 2,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=max(1, hidden // 256),
        tie_word_embeddings=False,
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    model.save_pretrained(directory / "base", max_shard_size="1GB")
    model = get_peft_model(model, LoraConfig(r=16, lora_alpha=32, target_modules=LINEAR, init_lora_weights=False))
    model.save_pretrained(directory / "adapter")
    PromptFormatter().save(directory / "adapter")
    base = {"name": "random", "path": str(directory / "base"), "sha256": base_digest(directory / "base")}
    fingerprint = PromptFormatter().fingerprint
    provenance = {"base_model": base, "prompt_fingerprint": fingerprint, "quantization": None}
    write_manifest(directory / "adapter", AdapterCheckpoint.kind, provenance)


def ours(directory: Path, output: Path) -> None:
    from sqlquarry import AdapterCheckpoint, AdapterMerger

    AdapterMerger().merge(AdapterCheckpoint.load(directory / "adapter"), output)


def peft(directory: Path, output: Path) -> None:
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(directory / "base", dtype=torch.bfloat16)
    PeftModel.from_pretrained(model, directory / "adapter").merge_and_unload().save_pretrained(output)


def copy(directory: Path, output: Path) -> None:
    shutil.copytree(directory / "base", output)


METHODS = {"copy": copy, "peft": peft, "ours": ours}


def run(method: str, directory: Path) -> None:
    start = time.perf_counter()
    METHODS[method](directory, directory / method)
    os.sync()
    seconds = time.perf_counter() - start
    # Not ru_maxrss, which a child takes over from the process that started it. Linux only, in KiB.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    print(json.dumps({"method": method, "wall_s": round(seconds, 2), "peak_rss_mb": int(peak.split()[1]) // 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/merge-benchmark"))
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=2048)
    parser.add_argument("--vocabulary", type=int, default=32_000)
    parser.add_argument("--method", choices=METHODS, help="run this one here instead of all in processes of their own")
    arguments = parser.parse_args()
    directory = arguments.directory
    if arguments.method:
        run(arguments.method, directory)
        return
    if not (directory / "adapter/manifest.json").exists():
        build(directory, arguments.layers, arguments.hidden, arguments.vocabulary)
    size = sum(file.stat().st_size for file in (directory / "base").glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB of weights")
    for method in METHODS:
        shutil.rmtree(directory / method, ignore_errors=True)
        command = [sys.executable, __file__, "--directory", str(directory), "--method", method]
        result = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        print(result | {"mb_per_s": round(size / 1e6 / result["wall_s"])})


if __name__ == "__main__":
    main()
