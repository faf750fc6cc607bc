"""What can be chosen about a training run, checked all at once."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Literal

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options

# Fields that change how a run is carried out, but nothing of its result except the rounding of sums.
_HOW_NOT_WHAT = {
    "hold_dequantized",
    "gradient_checkpointing",
    "torch_compile",
    "attn_implementation",
    "sharding",
    "cpu_offload",
    "save_interval_s",
    "save_steps",
    "save_total_limit",
    "report_to",
}

Auto = Literal["auto"]
Sharding = Literal["auto", "full", "hybrid", "none"]

# Words of transformers, PEFT and TRL for options that have another name here, and words that people shorten.
_ALSO_CALLED = {
    "epoch": "num_train_epochs",
    "epochs": "num_train_epochs",
    "batch_size": "records_per_step",
    "per_device_train_batch_size": "records_per_step",
    "gradient_accumulation_steps": "records_per_step",
    "lr": "learning_rate",
    "warmup_steps": "warmup_ratio",
    "max_seq_length": "max_length",
    "packing": "share_prefixes",
    "r": "lora_r",
    "rank": "lora_r",
    "lora_rank": "lora_r",
    "alpha": "lora_alpha",
    "dropout": "lora_dropout",
    "lora_target_modules": "target_modules",
    "trainable_token_indices": "trainable_tokens",
    "load_in_4bit": "quantization",
    "bnb_4bit_quant_type": "quantization",
    "attention": "attn_implementation",
    "compile": "torch_compile",
    "use_cpu": "device",
    "fsdp": "sharding",
}


@check_options(also_called=_ALSO_CALLED)
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """A QLoRA training run, in the words of transformers, PEFT and TRL where they have one.

    Args:
        num_train_epochs: passes over the records; may be a fraction.
        records_per_step: records that one optimiser step sees, on average.
        learning_rate: peak rate; "auto" chooses it by the model's width (see `learning_rate_for`).
        warmup_ratio: share of the steps in which the rate rises; afterwards it falls as a cosine to zero.
        max_length: length of a packed row, in tokens; a longer record is an error, never cut.
        share_prefixes: compute what records have in common (instructions, schema) once per row.
        lora_r: rank (width) of the low-rank update.
        lora_alpha: the update is scaled by lora_alpha / lora_r.
        lora_dropout: share of the update's inputs set to zero in training.
        target_modules: "all-linear" (all but the head) or the names of linear layers.
        trainable_tokens: tokens whose rows of embeddings and head are trained too, by their text; "auto" trains that of
            the token that ends an answer if the base was never trained to write it; None trains none, and refuses such
            a base. Processes that share the base (`sharding`) cannot train rows.
        quantization: "nf4" trains on 4-bit base weights (QLoRA), None on the weights as they are (LoRA).
        hold_dequantized: hold the values of the 4-bit weights in bf16: four times their memory, and no time is spent on
            unpacking them; the adapter is the same. "auto" does so on a GPU with room for it.
        attn_implementation: "sdpa" with a dense mask, "flex_attention" with one of blocks (CUDA only, always compiled),
            "auto" takes flex_attention on CUDA if layers are compiled.
        torch_compile: compile the decoder's layers and, with flex attention and without dropout, launch each row as
            one CUDA graph (of a shared base from torch 2.11 on, and without `cpu_offload`); "auto" does so on CUDA
            only. Models with experts are never compiled.
        gradient_checkpointing: recompute the activations of all layers in the backward pass (True), of this number, or
            of none (False); "auto" recomputes as many as the GPU's memory asks for, and none on a CPU.
        max_grad_norm: gradients are scaled down to this norm.
        device: "auto", "cpu" or "cuda".
        seed: seeds adapter, packing, order and dropout.
        sharding: where the base is held when several processes train: "full", in parts over all (FSDP2); "hybrid", in
            parts within each machine and whole over machines (HSDP); "none", whole on each, so that nothing but the
            adapter's gradient travels. "auto" takes the fastest that fits the GPUs, and "full" on CPUs.
        cpu_offload: keep sharded base weights in CPU memory and bring them in layer by layer.
        save_interval_s: seconds from one checkpoint to the next; a kill costs at most this time.
        save_steps: steps from one checkpoint to the next, instead; None saves by time.
        save_total_limit: newest checkpoints that are kept.
        report_to: services that get every step's figures: "tensorboard", "wandb", "mlflow".

    Raises:
        ConfigError: names every field that cannot work.
    """

    num_train_epochs: float = 2.0
    records_per_step: int = 64
    learning_rate: float | Auto = "auto"
    warmup_ratio: float = 0.03
    max_length: int = 2048
    share_prefixes: bool = True
    lora_r: int = 16
    lora_alpha: float = 32.0
    lora_dropout: float = 0.0
    target_modules: Literal["all-linear"] | Sequence[str] = "all-linear"
    trainable_tokens: Auto | Sequence[str] | None = None
    quantization: Literal["nf4"] | None = "nf4"
    hold_dequantized: bool | Auto = "auto"
    attn_implementation: Literal["auto", "sdpa", "flex_attention"] = "auto"
    torch_compile: bool | Auto = "auto"
    gradient_checkpointing: bool | int | Auto = "auto"
    max_grad_norm: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 42
    sharding: Sharding = "auto"
    cpu_offload: bool = False
    save_interval_s: float = 600.0
    save_steps: int | None = None
    save_total_limit: int = 2
    report_to: Sequence[str] = ()

    def __post_init__(self) -> None:
        for name in ("target_modules", "trainable_tokens", "report_to"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        checks = {
            "num_train_epochs": (self.num_train_epochs > 0, "above 0"),
            "records_per_step": (self.records_per_step >= 1, "at least 1"),
            "learning_rate": (self.learning_rate == "auto" or 0 < self.learning_rate < 1, "'auto' or between 0 and 1"),
            "warmup_ratio": (0 <= self.warmup_ratio < 1, "from 0 to below 1"),
            "max_length": (self.max_length >= 16, "at least 16"),
            "lora_r": (self.lora_r >= 1, "at least 1"),
            "lora_alpha": (self.lora_alpha > 0, "above 0"),
            "lora_dropout": (0 <= self.lora_dropout < 1, "from 0 to below 1"),
            "target_modules": (len(self.target_modules) > 0, "'all-linear' or a list of layer names"),
            "trainable_tokens": (
                self.trainable_tokens in ("auto", None) or (self.trainable_tokens and all(self.trainable_tokens)),
                "'auto', None or a list of token texts",
            ),
            "attn_implementation": (
                self.attn_implementation != "flex_attention" or self.device != "cpu",
                "'auto' or 'sdpa' on a CPU",
            ),
            "gradient_checkpointing": (
                self.gradient_checkpointing == "auto" or self.gradient_checkpointing >= 0,
                "'auto', True, False or a number of layers",
            ),
            "seed": (0 <= self.seed < 2**32, "from 0 to 4294967295"),
            "max_grad_norm": (self.max_grad_norm > 0, "above 0"),
            "save_interval_s": (self.save_interval_s > 0, "above 0"),
            "save_steps": (self.save_steps is None or self.save_steps >= 1, "None or at least 1"),
            "save_total_limit": (self.save_total_limit >= 2, "at least 2: one must remain if the last is damaged"),
        }
        bad = [
            f"{name} is {getattr(self, name)!r}, but must be {rule}"
            for name, (fine, rule) in checks.items()
            if not fine
        ]
        if bad:
            raise ConfigError("TrainingConfig: " + "; ".join(bad))

    def recomputed_layers(self, layers: int, *, cuda: bool) -> int:
        """Return how many of `layers` are recomputed; all of them on CUDA until `fitted` has chosen."""
        chosen = cuda if self.gradient_checkpointing == "auto" else self.gradient_checkpointing
        return chosen * layers if isinstance(chosen, bool) else min(chosen, layers)

    def compiles_layers(self, *, cuda: bool) -> bool:
        """Return whether the decoder's layers are compiled."""
        return cuda if self.torch_compile == "auto" else self.torch_compile

    def uses_flex_attention(self, *, cuda: bool) -> bool:
        """Return whether attention is torch's flex_attention."""
        if self.attn_implementation == "auto":
            return cuda and self.compiles_layers(cuda=cuda)
        return self.attn_implementation == "flex_attention"

    def shard_group_size(self, processes: int, machines: int) -> int:
        """Return how many of a run's processes hold one copy of the base together; all until `fitted` has chosen."""
        return {"none": 1, "hybrid": processes // machines}.get(self.sharding, processes)

    def uses_cuda_graphs(self, *, cuda: bool, shard_group_size: int) -> bool:
        """Return whether a row is launched as one CUDA graph, which holds nothing random and no weights in CPU memory.

        Runs with `trainable_tokens` are not: no GPU has been tried with them.

        If a group of processes shares the base, FSDP2 copies addresses from pinned memory, which torch keeps for
        replays of a graph since 2.11 (pytorch #167507).
        """
        fixed = cuda and self.compiles_layers(cuda=cuda) and self.uses_flex_attention(cuda=cuda)
        fixed = fixed and not self.lora_dropout and not self.trainable_tokens
        return fixed and (shard_group_size == 1 or (not self.cpu_offload and _torch_version() >= (2, 11)))

    @property
    def holds_4bit_weights(self) -> bool:
        """Whether linear weights are in memory in 4 bits."""
        return self.quantization is not None and self.hold_dequantized is not True

    @property
    def identity(self) -> dict[str, object]:
        """What the adapter depends on, ready for JSON: a run resumes only from checkpoints of the same."""
        fields: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: value for name, value in fields.items() if name not in _HOW_NOT_WHAT}


@functools.cache
def _torch_version() -> tuple[int, ...]:
    return tuple(int(number) for number in version("torch").split(".")[:2])  # without importing it


def learning_rate_for(hidden_size: int) -> float:
    """Return a peak rate for LoRA on a Llama of this width: 5e-4 · (2000 / hidden_size)^0.775.

    Source: Thinking Machines Lab, "LoRA Without Regret" (2025), the rate fitted over Llama models: ten times that of
    full fine-tuning, falling with width. It gives 1.3e-3 at width 576 and 2.9e-4 at 4096.
    """
    return float(5e-4 * (2000 / hidden_size) ** 0.775)


DEFAULT_CONFIG = TrainingConfig()
