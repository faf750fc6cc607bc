"""What can be chosen about a training run, checked all at once."""

from __future__ import annotations

import dataclasses
import functools
import json
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Literal

from sqlquarry.errors import ConfigError
from sqlquarry.options import check_options

# Fields that change how a run is carried out, and nothing of its result but the rounding of sums.
_HOW_NOT_WHAT = {
    "hold_dequantized",
    "gradient_checkpointing",
    "compiled",
    "attention",
    "sharding",
    "cpu_offload",
    "checkpoint_interval_s",
    "checkpoint_interval_steps",
    "kept_checkpoints",
    "report_to",
}

Sharding = Literal["full", "hybrid", "none"]

# The words of transformers, PEFT and TRL for what is meant here.
_ALSO_CALLED = {
    "num_train_epochs": "epochs",
    "batch_size": "records_per_step",
    "per_device_train_batch_size": "records_per_step",
    "gradient_accumulation_steps": "records_per_step",
    "lr": "learning_rate",
    "warmup_ratio": "warmup_share",
    "max_length": "max_sequence_tokens",
    "max_seq_length": "max_sequence_tokens",
    "packing": "share_prefixes",
    "r": "rank",
    "lora_r": "rank",
    "lora_rank": "rank",
    "lora_alpha": "alpha",
    "lora_dropout": "dropout",
    "load_in_4bit": "quantization",
    "bnb_4bit_quant_type": "quantization",
    "attn_implementation": "attention",
    "torch_compile": "compiled",
    "max_grad_norm": "max_gradient_norm",
    "fsdp": "sharding",
    "save_steps": "checkpoint_interval_steps",
    "save_total_limit": "kept_checkpoints",
}


@check_options(also_called=_ALSO_CALLED)
@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingConfig:
    """A QLoRA training run.

    Args:
        epochs: passes over the records; may be a fraction.
        records_per_step: records that one optimiser step sees, on average.
        learning_rate: peak rate; None chooses it by the model's width (see `learning_rate_for`).
        warmup_share: share of the steps in which the rate rises; afterwards it falls as a cosine to zero.
        max_sequence_tokens: length of a packed row, in tokens; a longer record is an error, never cut.
        share_prefixes: compute what records have in common (instructions, schema) once per row.
        rank: width of the low-rank update.
        alpha: the update is scaled by alpha / rank.
        dropout: share of the update's inputs set to zero in training.
        target_modules: "all-linear" (all but the head) or the names of linear layers.
        trainable_tokens: tokens whose rows of embeddings and head are trained too, by their text; "auto" trains that of
            the token that ends an answer if the base was never trained to write it; None trains none, and refuses such
            a base. Processes that share the base (`sharding`) cannot train rows.
        quantization: "nf4" trains on 4-bit base weights (QLoRA), None on the weights as they are (LoRA).
        hold_dequantized: hold the values of the 4-bit weights in bf16: four times their memory, and no time is spent on
            unpacking them; the adapter is the same. None does so on a GPU with room for it.
        attention: "sdpa" with a dense mask, "flex" with one of blocks (CUDA only, always compiled), "auto" takes flex
            on CUDA where layers are compiled.
        compiled: compile the decoder's layers (torch.compile) and, with flex attention and without dropout, launch each
            row as one CUDA graph (of a shared base from torch 2.11 on, and without `cpu_offload`); None does so on CUDA
            only. Models with experts are never compiled.
        gradient_checkpointing: recompute the activations of all layers in the backward pass, of this number, or (False)
            of none; None recomputes as many as the GPU's memory asks for, and none on a CPU.
        max_gradient_norm: gradients are scaled down to this norm.
        device: "auto", "cpu" or "cuda".
        seed: seeds adapter, packing, order and dropout.
        sharding: where the base lies when several processes train: "full", in parts over all (FSDP2); "hybrid", in
            parts within each machine and whole over machines (HSDP); "none", whole on each, so that nothing but the
            adapter's gradient travels. None takes the fastest that fits the GPUs, and "full" on CPUs.
        cpu_offload: keep sharded base weights in CPU memory and bring them in layer by layer.
        checkpoint_interval_s: seconds from one checkpoint to the next; what a kill costs at most.
        checkpoint_interval_steps: steps from one checkpoint to the next, instead.
        kept_checkpoints: newest checkpoints that are kept.
        report_to: services that get every step's figures: "tensorboard", "wandb", "mlflow".

    Raises:
        ConfigError: names every field that cannot work.
    """

    epochs: float = 2.0
    records_per_step: int = 64
    learning_rate: float | None = None
    warmup_share: float = 0.03
    max_sequence_tokens: int = 2048
    share_prefixes: bool = True
    rank: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: Literal["all-linear"] | tuple[str, ...] = "all-linear"
    trainable_tokens: Literal["auto"] | tuple[str, ...] | None = None
    quantization: Literal["nf4"] | None = "nf4"
    hold_dequantized: bool | None = None
    attention: Literal["auto", "sdpa", "flex"] = "auto"
    compiled: bool | None = None
    gradient_checkpointing: bool | int | None = None
    max_gradient_norm: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 42
    sharding: Sharding | None = None
    cpu_offload: bool = False
    checkpoint_interval_s: float = 600.0
    checkpoint_interval_steps: int | None = None
    kept_checkpoints: int = 2
    report_to: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        checks = {
            "epochs": (self.epochs > 0, "above 0"),
            "records_per_step": (self.records_per_step >= 1, "at least 1"),
            "learning_rate": (self.learning_rate is None or 0 < self.learning_rate < 1, "None or between 0 and 1"),
            "warmup_share": (0 <= self.warmup_share < 1, "from 0 to below 1"),
            "max_sequence_tokens": (self.max_sequence_tokens >= 16, "at least 16"),
            "rank": (self.rank >= 1, "at least 1"),
            "alpha": (self.alpha > 0, "above 0"),
            "dropout": (0 <= self.dropout < 1, "from 0 to below 1"),
            "target_modules": (len(self.target_modules) > 0, "'all-linear' or a list of layer names"),
            "trainable_tokens": (
                self.trainable_tokens in ("auto", None) or (self.trainable_tokens and all(self.trainable_tokens)),
                "'auto', None or a list of token texts",
            ),
            "attention": (self.attention != "flex" or self.device != "cpu", "'auto' or 'sdpa' on a CPU"),
            "gradient_checkpointing": (
                self.gradient_checkpointing is None or self.gradient_checkpointing >= 0,
                "True, False, None or a number of layers",
            ),
            "seed": (0 <= self.seed < 2**32, "from 0 to 4294967295"),
            "max_gradient_norm": (self.max_gradient_norm > 0, "above 0"),
            "checkpoint_interval_s": (self.checkpoint_interval_s > 0, "above 0"),
            "checkpoint_interval_steps": (
                self.checkpoint_interval_steps is None or self.checkpoint_interval_steps >= 1,
                "None or at least 1",
            ),
            "kept_checkpoints": (self.kept_checkpoints >= 2, "at least 2: one must remain where the last is damaged"),
        }
        bad = [
            f"{name} is {getattr(self, name)!r}, but must be {rule}"
            for name, (fine, rule) in checks.items()
            if not fine
        ]
        if bad:
            raise ConfigError("TrainingConfig: " + "; ".join(bad))

    def recomputed(self, layers: int, *, cuda: bool) -> int:
        """Return how many of `layers` are recomputed; all of them on CUDA until `fitted` has chosen."""
        chosen = cuda if self.gradient_checkpointing is None else self.gradient_checkpointing
        return chosen * layers if isinstance(chosen, bool) else min(chosen, layers)

    def compiles(self, *, cuda: bool) -> bool:
        """Whether the decoder's layers are compiled."""
        return cuda if self.compiled is None else self.compiled

    def uses_flex(self, *, cuda: bool) -> bool:
        """Whether attention is torch's flex_attention."""
        return self.attention == "flex" or (self.attention == "auto" and cuda and self.compiles(cuda=cuda))

    def sharers(self, processes: int, machines: int) -> int:
        """How many of a run's processes hold one copy of the base together; all where nobody has chosen yet."""
        return {"none": 1, "hybrid": processes // machines}.get(self.sharding or "full", processes)

    def uses_graphs(self, *, cuda: bool, sharers: int) -> bool:
        """Whether a row is launched as one CUDA graph, which holds nothing random and no weights in CPU memory.

        Runs with `trainable_tokens` are not: no GPU has been tried with them.

        Where `sharers` share the base FSDP2 copies addresses from pinned memory, which torch keeps for replays of a
        graph since 2.11 (pytorch #167507).
        """
        fixed = cuda and self.compiles(cuda=cuda) and self.uses_flex(cuda=cuda) and not self.dropout
        fixed = fixed and not self.trainable_tokens
        return fixed and (sharers == 1 or (not self.cpu_offload and _torch_version() >= (2, 11)))

    @property
    def packs_weights(self) -> bool:
        """Whether linear weights lie in memory in 4 bits."""
        return self.quantization is not None and not self.hold_dequantized

    @property
    def identity(self) -> dict[str, Any]:
        """What the adapter depends on, ready for JSON: a run resumes only from checkpoints of the same."""
        fields = json.loads(json.dumps(dataclasses.asdict(self)))
        return {name: value for name, value in fields.items() if name not in _HOW_NOT_WHAT}


@functools.cache
def _torch_version() -> tuple[int, ...]:
    return tuple(int(number) for number in version("torch").split(".")[:2])  # without importing it


def learning_rate_for(hidden_size: int) -> float:
    """A peak rate for LoRA on a Llama of this width: 5e-4 · (2000 / hidden_size)^0.775.

    Source: Thinking Machines Lab, "LoRA Without Regret" (2025), the rate fitted over Llama models: ten times that of
    full fine-tuning, falling with width. It gives 1.3e-3 at width 576 and 2.9e-4 at 4096.
    """
    return float(5e-4 * (2000 / hidden_size) ** 0.775)
