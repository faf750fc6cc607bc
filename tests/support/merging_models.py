"""Create tiny models of every architecture family and adapters saved by PEFT, and merge them in both ways."""

from __future__ import annotations

import copy
import dataclasses
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from sqlquarry import AdapterCheckpoint, PromptFormatter
from sqlquarry.manifests import base_digest, write_manifest
from sqlquarry.merging.lora_adapter import LoraAdapter
from sqlquarry.merging.plan import MergePlan, plan_merge
from sqlquarry.merging.tensor_file import FLOATS, TensorFile
from sqlquarry.merging.update import Update
from sqlquarry.quantization import QuantizationRecipe

ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
LINEAR = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]
VOCABULARY = 96
INPUT = torch.arange(4, 40)[None]

_SIZES = {
    "vocab_size": VOCABULARY, "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "num_hidden_layers": 2, "initializer_range": 0.2,
    "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3,
}  # fmt: skip
_MIXTURES: dict[str, dict[str, Any]] = {
    "Mixtral": {"num_local_experts": 4, "num_experts_per_tok": 2},
    "Qwen3Moe": {"moe_intermediate_size": 24, "num_experts": 4, "num_experts_per_tok": 2},
}


@dataclass(frozen=True)
class Base:
    """A model on disk and the same model in memory, which must only be copied."""

    directory: Path
    model: Any

    def load(self, dtype: torch.dtype | None = None) -> Any:
        """Return a copy to train or merge. Another dtype is loaded from disk, as rotary buffers must not be cast."""
        if dtype in (None, self.model.dtype):
            return copy.deepcopy(self.model)
        return AutoModelForCausalLM.from_pretrained(self.directory, dtype=dtype)


def make_base(family: str, directory: Path, *, tied: bool = False, dtype: torch.dtype = torch.bfloat16) -> Base:
    """Save a model of two random layers. Biases and norms are random too, so that none is just zero or one."""
    import transformers

    torch.manual_seed(0)
    options = _SIZES | _MIXTURES.get(family, {}) | {"tie_word_embeddings": tied}
    model = getattr(transformers, f"{family}ForCausalLM")(getattr(transformers, f"{family}Config")(**options))
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.1)
        if "norm" in name:
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    model.to(dtype).save_pretrained(directory)
    return Base(directory, AutoModelForCausalLM.from_pretrained(directory, dtype=dtype).eval())


def train(
    base: Base, directory: Path, *, adapter_dtype: torch.dtype = torch.float32, seed: int = 1, **options: Any
) -> Any:
    """Change every trainable tensor of a new adapter, let PEFT save it, and return the model in eval mode."""
    config = {"r": 4, "lora_alpha": 6, "target_modules": LINEAR, "task_type": "CAUSAL_LM"} | options
    peft = get_peft_model(base.load(), LoraConfig(**config))
    torch.manual_seed(seed)
    for name, parameter in peft.named_parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float() + torch.randn(parameter.shape) * 0.05
            if "lora_" in name:
                parameter.data = parameter.data.to(adapter_dtype)
    peft.create_or_update_model_card = lambda _directory: None  # rendering a few of them takes a second
    peft.save_pretrained(directory)
    return peft.eval()


def train_resized(
    base: Base, directory: Path, rows: int, *, dtype: torch.dtype | None = None, seed: int = 1, **options: Any
) -> Any:
    """Like `train` for a vocabulary of `rows` tokens. Only the tensor names that the library adopts are kept."""
    config = {"r": 4, "lora_alpha": 6, "target_modules": LINEAR, "task_type": "CAUSAL_LM"} | options
    model = base.load(dtype)
    torch.manual_seed(seed)
    if rows != model.config.vocab_size:
        model.resize_token_embeddings(rows, mean_resizing=False)
    peft = get_peft_model(model, LoraConfig(**config))
    for parameter in peft.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float() + torch.randn(parameter.shape) * 0.05
    peft.create_or_update_model_card = lambda _directory: None
    peft.save_pretrained(directory)
    file = directory / "adapter_model.safetensors"
    copies = (".modules_to_save.", ".original_module.")
    kept = {name: value for name, value in load_file(file).items() if not any(one in name for one in copies)}
    save_file(kept, file, {"format": "pt"})
    return peft.eval()


def finish(directory: Path, base: Path, recipe: QuantizationRecipe | None = None) -> AdapterCheckpoint:
    """Add the prompt and the manifest, as the trainer does."""
    PromptFormatter().save(directory)
    provenance = {
        "base_model": {"name": "tiny", "path": str(base), "sha256": base_digest(base)},
        "prompt_fingerprint": PromptFormatter().fingerprint,
        "quantization": dataclasses.asdict(recipe) if recipe else None,
    }
    write_manifest(directory, AdapterCheckpoint.kind, provenance)
    return AdapterCheckpoint.load(directory)


def saved(model: Any) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the tensors of a model as saved, and whether its config ties the embeddings."""
    with tempfile.TemporaryDirectory() as directory:
        model.save_pretrained(directory)
        tied = json.loads((Path(directory) / "config.json").read_text())["tie_word_embeddings"]
        return load_file(Path(directory) / "model.safetensors"), tied


def peft_merge(base: Base, adapter: Path, dtype: torch.dtype | None = None) -> tuple[dict[str, torch.Tensor], bool]:
    """Return the reference: PEFT's merge, as saved."""
    return saved(PeftModel.from_pretrained(base.load(dtype), adapter).merge_and_unload())


def plan(base: Base, *adapters: tuple[Path, float]) -> MergePlan:
    """Return this library's plan for adapters with weights."""
    tensors = {tensor.name: tensor for tensor in TensorFile.open(base.directory / "model.safetensors").tensors}
    opened: Sequence[tuple[LoraAdapter, float]] = [(LoraAdapter.open(path), weight) for path, weight in adapters]
    return plan_merge(opened, tensors, tied=base.model.config.tie_word_embeddings)


def our_merge(
    base: Base, *adapters: tuple[Path, float], dtype: torch.dtype | None = None
) -> tuple[dict[str, torch.Tensor], bool]:
    """Return every tensor of this library's merge, and whether the embeddings are tied."""
    made = plan(base, *adapters)
    stored = {tensor.name: tensor for tensor in TensorFile.open(base.directory / "model.safetensors").tensors}
    merged = {}
    for name, tensor in {**stored, **made.extra}.items():
        update = made.updates.get(name, Update())
        weight = (update.saved or tensor).load()
        stored_as = made.dtypes.get(name, tensor.dtype)
        merged[name], _, _ = update.apply_rows(weight, 0, dtype or getattr(torch, FLOATS[stored_as][0]))
    return merged, made.config.get("tie_word_embeddings", base.model.config.tie_word_embeddings)


def logits(base: Base, tensors: dict[str, torch.Tensor], *, tied: bool) -> torch.Tensor:
    """Return the logits of the base's architecture with these tensors."""
    config = copy.deepcopy(base.model.config)
    config.tie_word_embeddings = tied
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    keys = model.load_state_dict({name: value.float() for name, value in tensors.items()}, strict=False)
    assert not keys.unexpected_keys
    assert keys.missing_keys in ([], ["lm_head.weight"])
    with torch.no_grad():
        answer: torch.Tensor = model.eval()(input_ids=INPUT).logits
    return answer


def require_equal(found: tuple[dict[str, torch.Tensor], bool], expected: tuple[dict[str, torch.Tensor], bool]) -> None:
    """Check that the tensors are the same, bit for bit, and that the tying is the same."""
    assert found[0].keys() == expected[0].keys()
    assert [name for name in expected[0] if not torch.equal(found[0][name], expected[0][name])] == []
    assert found[1] == expected[1]
