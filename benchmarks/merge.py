"""Wall time, peak memory and throughput of our merge, PEFT's merge, and a plain copy of the same files.

    python benchmarks/merge.py                                         2 GB in Llama's shapes, about a minute
    python benchmarks/merge.py --shape 8b --methods copy,ours          Llama 3.1 8B's shapes, 16 GB
    python benchmarks/merge.py --quantized --methods ours,verify       into NF4 values, and the check of the result

Each method runs in a process of its own; base and adapter are random and stay in the directory. `copy` is `cp`. The
clock starts when the libraries are imported, and stops after a sync, so that no method leaves its writing to the next.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import sqlquarry as sq

LINEAR = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
RANK = 16


@dataclasses.dataclass(frozen=True)
class Shape:
    """Widths of a Llama."""

    layers: int
    hidden: int
    intermediate: int
    kv: int
    vocabulary: int

    def tensors(self) -> list[dict[str, tuple[int, ...]]]:
        """Names and shapes of a Llama's tensors, in groups: embedding, each layer, head."""
        h, i = self.hidden, self.intermediate
        linear = {
            "self_attn.q_proj": (h, h),
            "self_attn.k_proj": (self.kv, h),
            "self_attn.v_proj": (self.kv, h),
            "self_attn.o_proj": (h, h),
            "mlp.gate_proj": (i, h),
            "mlp.up_proj": (i, h),
            "mlp.down_proj": (h, i),
            "input_layernorm": (h,),
            "post_attention_layernorm": (h,),
        }
        layers = [
            {f"model.layers.{n}.{name}.weight": shape for name, shape in linear.items()} for n in range(self.layers)
        ]
        first = {"model.embed_tokens.weight": (self.vocabulary, h)}
        return [first, *layers, {"model.norm.weight": (h,), "lm_head.weight": (self.vocabulary, h)}]


def build(directory: Path, shape: Shape, *, quantized: bool) -> None:
    """Random weights shard by shard, so that no model is ever in memory."""
    import torch
    from peft import LoraConfig
    from safetensors.torch import save_file
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import LlamaConfig

    from sqlquarry.manifests import base_digest, write_manifest
    from sqlquarry.merging.storage.local import LocalDirectory
    from sqlquarry.merging.verification.examples import base_tokenizer
    from sqlquarry.quantization import QuantizationRecipe

    base, adapter = directory / "base", directory / "adapter"
    adapter.mkdir(parents=True)
    LlamaConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.hidden // 64,
        num_key_value_heads=shape.kv // 64,
        tie_word_embeddings=False,
        architectures=["LlamaForCausalLM"],
        dtype="bfloat16",
    ).save_pretrained(base)
    alphabet = {token: number for number, token in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(alphabet | {"<eos>": len(alphabet)}, []))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    tokenizer.add_special_tokens(["<eos>"])
    tokenizer.save(str(base / "tokenizer.json"))
    (base / "tokenizer_config.json").write_text('{"eos_token": "<eos>"}')
    groups = shape.tensors()
    weight_map, lora, noise = {}, {}, torch.randn(1 << 24)
    for number, group in enumerate(groups, 1):
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        tensors = {}
        for tensor, size in group.items():
            count = torch.Size(size).numel()
            block = noise.roll(len(weight_map) + 1)
            values = block.repeat(-(-count // len(block)))[:count].reshape(size) * 0.02
            tensors[tensor] = (1 + values if len(size) == 1 else values).to(torch.bfloat16)
            module = tensor.removesuffix(".weight")
            if module.endswith("_proj"):
                lora[f"base_model.model.{module}.lora_A.weight"] = torch.randn(RANK, size[1]) * 0.02
                lora[f"base_model.model.{module}.lora_B.weight"] = torch.randn(size[0], RANK) * 0.02
        save_file(tensors, base / name, {"format": "pt"})
        weight_map |= dict.fromkeys(tensors, name)
    index = {"metadata": {}, "weight_map": weight_map}
    (base / "model.safetensors.index.json").write_text(json.dumps(index))
    save_file(lora, adapter / "adapter_model.safetensors")
    LoraConfig(r=RANK, lora_alpha=32, target_modules=LINEAR, task_type="CAUSAL_LM").save_pretrained(adapter)
    formatter = sq.PromptFormatter().bind(base_tokenizer(LocalDirectory(base)))
    formatter.save(adapter)
    modules = tuple(sorted(name.removesuffix(".weight") for name in weight_map if name.endswith("_proj.weight")))
    recipe = QuantizationRecipe(modules=modules) if quantized else None
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
SHAPES = {
    "2gb": Shape(layers=18, hidden=2048, intermediate=7168, kv=512, vocabulary=32_000),
    "8b": Shape(layers=32, hidden=4096, intermediate=14_336, kv=1024, vocabulary=128_256),
}


def run(method: str, directory: Path) -> None:
    for library in {"copy": (), "peft": ("torch", "peft", "transformers")}.get(method, ("torch", "sqlquarry.merging")):
        importlib.import_module(library)
    os.sync()
    start = time.perf_counter()
    METHODS[method](directory, directory / method)
    os.sync()
    seconds = time.perf_counter() - start
    # Not ru_maxrss, which a child takes over from the process that started it. Linux only, in KiB.
    peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    usage = os.times()
    cpu = usage.user + usage.system + usage.children_user + usage.children_system
    numbers = {"wall_s": round(seconds, 2), "cpu_s": round(cpu, 2), "peak_rss_mb": int(peak.split()[1]) // 1024}
    print(json.dumps({"method": method, **numbers}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--directory", type=Path, default=Path("/tmp/merge-benchmark"))
    parser.add_argument("--shape", choices=SHAPES, default="2gb")
    parser.add_argument("--layers", type=int, help="instead of the shape's own")
    parser.add_argument("--hidden", type=int, help="instead of the shape's own; the other widths follow")
    parser.add_argument("--vocabulary", type=int, help="instead of the shape's own")
    parser.add_argument("--quantized", action="store_true", help="as if the adapter had been trained on NF4 weights")
    parser.add_argument("--methods", default="copy,peft,ours", help=f"some of {', '.join(METHODS)}, with commas")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each method, in turn")
    parser.add_argument("--method", choices=METHODS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    directory = options.directory
    if options.method:
        run(options.method, directory)
        return
    shape = SHAPES[options.shape]
    if options.hidden:
        shape = dataclasses.replace(
            shape, hidden=options.hidden, intermediate=options.hidden * 7 // 2, kv=options.hidden // 4
        )
    shape = dataclasses.replace(
        shape, layers=options.layers or shape.layers, vocabulary=options.vocabulary or shape.vocabulary
    )
    if not (directory / "adapter/manifest.json").exists():
        shutil.rmtree(directory, ignore_errors=True)
        build(directory, shape, quantized=options.quantized)
    size = sum(file.stat().st_size for file in (directory / "base").glob("*.safetensors"))
    print(f"{size / 1e9:.2f} GB of weights")
    for method in options.methods.split(",") * options.repeat:
        shutil.rmtree(directory / method, ignore_errors=True)
        command = [sys.executable, __file__, "--directory", str(directory), "--method", method]
        result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        print(result | {"mb_per_s": round(size / 1e6 / result["wall_s"])}, flush=True)


if __name__ == "__main__":
    main()
