"""Make adapters with the tools that people train with: two steps each, saved as that tool saves.

By hand, when a tool's new version may write other files. Bases first, then each tool in an environment of its own
(torch 2.13.0 on a CPU suffices), and the references last, with the newest PEFT:

    python tests/tools/foreign_adapters.py /tmp/foreign bases          # transformers 5.24.0
    python tests/tools/foreign_adapters.py /tmp/foreign peft           # peft 0.7.1, 0.10.0, 0.14.0 and 0.21.2 in turn
    python tests/tools/foreign_adapters.py /tmp/foreign trl            # trl 1.16.0, peft 0.21.2
    python tests/tools/foreign_adapters.py /tmp/foreign llamafactory   # llamafactory 0.9.5, peft 0.18.1, trl 0.24.0
    python tests/tools/foreign_adapters.py /tmp/foreign axolotl        # axolotl 0.19.0, peft 0.20.0, trl 1.9.0
    python tests/tools/foreign_adapters.py /tmp/foreign unsloth        # peft 0.21.2; Unsloth itself needs a GPU
    python tests/tools/foreign_adapters.py /tmp/foreign references     # peft 0.21.2

A name after the tool makes only the adapters whose variant contains it. LLaMA-Factory needs DISABLE_VERSION_CHECK=1
with other versions than it pins. Old PEFTs need `pip install --no-deps`; they run under transformers 5.

LLaMA-Factory imports torchaudio, for which an empty module does. Run one tool at a time: all write MANIFEST.json.

The results are bases/FAMILY, adapters/TOOL-FAMILY-VARIANT, logits/ and MANIFEST.json. logits/NAME.npy is the forward
pass of PEFT's unmerged model in float32 on INPUT_IDS. For a 4-bit adapter, its base is the bfloat16 values of NF4, and
NAME-16bit.npy is the same over the original weights. NAME-live.npy comes from the model in the process that trained it,
and the manifest's live_difference compares the two: it is large if the tool did not save what it trained.
"""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

import foreign_trainers
import numpy as np
import torch
from foreign_bases import (
    FAMILIES,
    LORA,
    PROJECTIONS,
    Kept,
    added_tokens,
    load,
    logits,
    make_bases,
    two_steps,
)
from transformers import AutoTokenizer

# --- PEFT alone -------------------------------------------------------------------------------------------------------


def peft_variants() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Yield variant, LoraConfig's arguments and how to save, for those that the installed PEFT has."""
    from peft import LoraConfig

    both = ["embed_tokens", "lm_head"]
    cases: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
        "lora": ({}, {}),
        "4bit": ({}, {"four_bit": True}),
        "bin": ({}, {"safe_serialization": False}),
        "rslora": ({"use_rslora": True}, {}),
        "dora": ({"use_dora": True}, {}),
        "patterns": ({"rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.mlp.up_proj": 3}}, {}),
        "bias-all": ({"bias": "all"}, {}),
        "lora-bias": ({"lora_bias": True, "target_modules": ["q_proj", "k_proj", "v_proj"]}, {}),
        "one-layer": ({"layers_to_transform": [1], "layers_pattern": "layers"}, {}),
        "all-linear": ({"target_modules": "all-linear"}, {}),
        "regex-no-task": ({"target_modules": r".*\.(q|v)_proj", "task_type": None}, {}),
        "embeddings-saved": ({"modules_to_save": both}, {}),
        "embeddings-saved-tied": ({"modules_to_save": ["embed_tokens"], "ensure_weight_tying": True}, {}),
        "embeddings-lora": ({"target_modules": [*PROJECTIONS, "embed_tokens"]}, {}),
        "head-lora": ({"target_modules": [*PROJECTIONS, "lm_head"]}, {}),
        "token-rows": ({"trainable_token_indices": [5, 40, 41]}, {}),
        "added-resized": ({}, {"added": True}),
        "added-padded": ({}, {"added": True, "multiple": 64}),
        "added-padded-saved": ({"modules_to_save": both}, {"added": True, "multiple": 64}),
        "added-token-rows": ({"trainable_token_indices": []}, {"added": True}),
        "added-not-saved": ({}, {"added": True, "save_embedding_layers": False}),
        "named": ({}, {"adapter_name": "sql"}),
        "pissa": ({"init_lora_weights": "pissa"}, {}),
        "target-parameters": ({"target_modules": ["q_proj"], "target_parameters": ["mlp.up_proj.weight"]}, {}),
    }
    fields = inspect.signature(LoraConfig).parameters
    for variant, (config, saving) in cases.items():
        if set(config) <= set(fields):
            yield variant, config, saving


def make_peft(kept: Kept, bases: Path) -> None:
    from peft import LoraConfig, get_peft_model

    def make(folder: Path, family: str, config: dict[str, Any], saving: dict[str, Any]) -> Any:
        saving = {**saving}
        base, tokenizer = bases / family, AutoTokenizer.from_pretrained(bases / family)
        torch.manual_seed(1)
        model = load(base, four_bit=saving.pop("four_bit", False))
        options = LORA | config
        if saving.pop("added", False):
            rows = added_tokens(model, tokenizer, saving.pop("multiple", None))
            options |= {"trainable_token_indices": rows} if "trainable_token_indices" in options else {}
            tokenizer.save_pretrained(folder)
        named = {"adapter_name": saving.pop("adapter_name")} if "adapter_name" in saving else {}
        model = get_peft_model(model, LoraConfig(**options), **named)
        two_steps(model)
        model.save_pretrained(folder, **saving)
        return model

    release = "peft" + version("peft")
    for family in FAMILIES:
        for variant, config, saving in peft_variants():
            full = release == "peft0.21.2" and family in ("llama", "qwen2")
            if full or variant in ("lora", "4bit", "bin") or (family == "llama" and variant != "pissa"):
                facts = {"peft": version("peft"), "four_bit": "four_bit" in saving, "config": config}
                kept.attempt(
                    release, family, variant, lambda to, f=family, c=config, s=saving: make(to, f, c, s), **facts
                )
    make_wrapped(kept, bases / "llama")
    if release == "peft0.21.2":
        make_others(kept, bases / "llama")


def make_wrapped(kept: Kept, base: Path) -> None:
    """Save what loops of people's own save: a state dict taken from around a wrapper."""
    import torch.distributed as dist
    from peft import LoraConfig, get_peft_model
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import apply_activation_checkpointing
    from torch.distributed.fsdp import FullyShardedDataParallel
    from torch.distributed.fsdp.wrap import ModuleWrapPolicy

    def compiled(model: Any) -> Any:
        wrapped: Any = torch.compile(model)
        return wrapped.state_dict()

    def parallel(model: Any) -> Any:
        return torch.nn.parallel.DistributedDataParallel(model).state_dict()

    def checkpointed(model: Any) -> Any:
        block = type(model.base_model.model.model.layers[0])
        apply_activation_checkpointing(model, check_fn=lambda module: isinstance(module, block))
        return dict(model.named_parameters())  # state_dict() takes the wrapper's name out

    def sharded(model: Any) -> Any:
        block = type(model.base_model.model.model.layers[0])
        policy = ModuleWrapPolicy({block})
        model = FullyShardedDataParallel(
            model, auto_wrap_policy=policy, use_orig_params=True, device_id=torch.device("cpu")
        )
        return {name: value.detach().clone() for name, value in model.named_parameters()}  # whole: one process

    def make(folder: Path, wrap: Callable[[Any], Any], *, through_peft: bool) -> None:
        torch.manual_seed(1)
        model = get_peft_model(load(base), LoraConfig(**LORA))
        two_steps(model)
        model.peft_config["default"].save_pretrained(folder)
        state = {name: value.detach() for name, value in wrap(model).items() if "lora_" in name}
        if through_peft:
            model.save_pretrained(folder, state_dict=state)
        else:
            torch.save(state, folder / "adapter_model.bin")

    tool = "wrapped" + version("peft")
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    for variant, wrap in {
        "compiled": compiled,
        "ddp": parallel,
        "checkpointed": checkpointed,
        "fsdp": sharded,
        "plain": lambda model: model.state_dict(),
    }.items():
        for through_peft, how in ((True, "peft"), (False, "torch")):
            name = f"{variant}-{how}"
            kept.attempt(tool, "llama", name, lambda to, w=wrap, t=through_peft: make(to, w, through_peft=t))
    dist.destroy_process_group()


def make_others(kept: Kept, base: Path) -> None:
    """Save what cannot be merged: other methods, and another task."""
    import peft
    from transformers import AutoModelForSequenceClassification

    def make(folder: Path, config: Any) -> None:
        torch.manual_seed(1)
        model = peft.get_peft_model(load(base), config)
        two_steps(model)
        model.save_pretrained(folder)

    def classifier(folder: Path) -> None:
        model = AutoModelForSequenceClassification.from_pretrained(base, num_labels=2, dtype=torch.float32)
        peft.get_peft_model(model, peft.LoraConfig(**LORA | {"task_type": "SEQ_CLS"})).save_pretrained(folder)

    causal = {"task_type": "CAUSAL_LM"}
    modules = {"target_modules": ["q_proj", "v_proj"]}
    for variant, config in {
        "ia3": peft.IA3Config(**causal, target_modules=["k_proj", "down_proj"], feedforward_modules=["down_proj"]),
        "loha": peft.LoHaConfig(**causal, **modules),
        "vera": peft.VeraConfig(**causal, target_modules=["q_proj"], r=4),
        "prompt-tuning": peft.PromptTuningConfig(**causal, num_virtual_tokens=4),
        "adalora": peft.AdaLoraConfig(**causal, **modules, total_step=10, init_r=4),
    }.items():
        kept.attempt("other", "llama", variant, lambda to, c=config: make(to, c), unmergeable=True)
    kept.attempt("other", "llama", "classifier", classifier, unmergeable=True)


# --- References -------------------------------------------------------------------------------------------------------


def read_tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    if (folder / "adapter_model.bin").exists():
        return dict(torch.load(folder / "adapter_model.bin", weights_only=True))
    return dict(load_file(folder / "adapter_model.safetensors"))


def make_references(kept: Kept, bases: Path) -> None:
    """Describe every adapter, and ask the newest PEFT for its logits."""
    from peft import LoraConfig, PeftModel

    root, path = kept.root, kept.root / "MANIFEST.json"
    defaults = LoraConfig().to_dict()
    for name, entry in json.loads(path.read_text()).items():
        folder = root / "adapters" / name
        if kept.wanted not in name or not folder.exists():
            continue
        kept.entries[name] = entry
        entry["files"] = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file())
        folder = next(folder.rglob("adapter_config.json")).parent if entry["variant"] == "named" else folder
        config, tensors = json.loads((folder / "adapter_config.json").read_text()), read_tensors(folder)
        entry["tensors"] = [f"{key} {value.dtype} {list(value.shape)}" for key, value in list(tensors.items())[:3]]
        entry["other_tensors"] = sorted({key for key in tensors if "lora_A" not in key and "lora_B" not in key})[:8]
        entry["surprising"] = {k: v for k, v in config.items() if k not in defaults or (v and v != defaults[k])}
        entry["missing_keys"] = sorted(defaults.keys() - config.keys())
        if entry.get("unmergeable"):
            continue
        # PEFT cannot read a wrapper's names, but all of these hold the same adapter.
        source = root / "adapters" / f"{entry['tool']}-llama-plain-peft" if "wrapped" in entry["tool"] else folder
        rows = [
            value.shape[0] for key, value in tensors.items() if key.endswith(("embed_tokens.weight", "head.weight"))
        ]
        if (folder / "tokenizer.json").exists():
            entry["tokens"] = len(AutoTokenizer.from_pretrained(folder))
            rows.append(entry["tokens"])
        for suffix, four_bit in (("", True), ("-16bit", False)) if entry["four_bit"] else (("", False),):
            try:
                model = load(bases / entry["family"], four_bit=four_bit)
                model = (model.dequantize() if four_bit else model).float()
                if rows and max(rows) > model.config.vocab_size:
                    entry["rows"] = max(rows)
                    model.resize_token_embeddings(max(rows), mean_resizing=False)
                found = logits(PeftModel.from_pretrained(model, source))
            except Exception as error:  # noqa: BLE001 - recorded
                entry["reference_error"] = f"{type(error).__name__}: {error}"[:300]
                continue
            np.save(root / "logits" / f"{name}{suffix}.npy", found)
            live = root / "logits" / f"{name}-live.npy"
            if not suffix and live.exists():  # differs if the tool did not save something that it trained
                trained = np.load(live)
                same = trained.shape == found.shape
                entry["live_difference"] = round(float(abs(trained - found).max()), 6) if same else trained.shape


MAKERS = {
    "peft": make_peft,
    "trl": foreign_trainers.make_trl,
    "llamafactory": foreign_trainers.make_llamafactory,
    "axolotl": foreign_trainers.make_axolotl,
    "unsloth": foreign_trainers.make_unsloth,
    "references": make_references,
}


def main(folder: str, tool: str, wanted: str = "") -> None:
    root = Path(folder)
    (root / "logits").mkdir(parents=True, exist_ok=True)
    kept = Kept(root, wanted)
    bases = root.resolve() / "bases"
    if tool == "bases":
        make_bases(bases)
    else:
        MAKERS[tool](kept, bases)
    kept.write()


if __name__ == "__main__":
    main(*sys.argv[1:])
