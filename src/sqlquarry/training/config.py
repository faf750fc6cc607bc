"""The options of a training run, checked all at once."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Literal, Self

from sqlquarry.options import check_options, check_rules, yaml_numbers
from sqlquarry.training.trl.settings import SFTFields, sft_problems

# Fields that change how a run is carried out. They do not change its result, except for the rounding of sums.
_NOT_IN_IDENTITY = {
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

# Names that transformers, PEFT and TRL use for these options, and common short forms.
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
    """The options of a QLoRA training run, named as in transformers, PEFT and TRL if they have the same option.

    Args:
        num_train_epochs: passes over the records. May be a fraction.
        records_per_step: records in one optimizer step, on average.
        learning_rate: peak rate. "auto" chooses it from the model's width (see `learning_rate_for`).
        warmup_ratio: share of the steps in which the rate rises. Afterwards it falls to zero as a cosine.
        max_length: length of a packed row in tokens. A longer record is an error, because records are never cut.
        share_prefixes: compute the beginning that records have in common (instructions, schema) once per row.
        lora_r: rank (width) of the low-rank update.
        lora_alpha: the update is scaled by lora_alpha / lora_r.
        lora_dropout: share of the update's inputs set to zero in training.
        target_modules: "all-linear" (all but the head) or the names of linear layers.
        trainable_tokens: tokens, as text, whose rows of the embeddings and the head are also trained. "auto" trains the
            row of the token that ends an answer if the base was never trained to write this token. None trains no rows,
            so `train` refuses such a base. Processes that share the base (`sharding`) cannot train rows.
        quantization: "nf4" trains on 4-bit base weights (QLoRA), None on the original weights (LoRA).
        hold_dequantized: hold the values of the 4-bit weights in bf16. This takes four times their memory, but saves
            the time to unpack them. The adapter is the same. "auto" does so on a GPU with enough memory.
        attn_implementation: "sdpa" uses a dense mask, "flex_attention" a mask of blocks (CUDA only, always compiled).
            "auto" uses flex_attention on CUDA if layers are compiled.
        torch_compile: compile the decoder's layers, and run rows as CUDA graphs if possible (see `uses_cuda_graphs`).
            "auto" does so on CUDA only. Models with experts are never compiled.
        gradient_checkpointing: recompute the activations of all layers in the backward pass (True), of this number of
            layers, or of none (False). "auto" recomputes as many as needed to fit the GPU, and none on a CPU.
        max_grad_norm: maximum norm of the gradient. Larger gradients are scaled down.
        device: "auto", "cpu" or "cuda".
        seed: seed of the adapter, packing, order and dropout.
        sharding: how several processes store the base. "full" splits it over all processes (FSDP2). "hybrid" splits it
            within each machine, and each machine has a complete base (HSDP). "none" gives each process a complete base,
            so that only the adapter's gradient is exchanged. "auto" is the fastest way that fits the GPUs, and "full"
            on CPUs.
        cpu_offload: keep sharded base weights in CPU memory and copy them to the GPU layer by layer.
        save_interval_s: seconds between checkpoints. A run that is killed loses at most this time.
        save_steps: steps between checkpoints, instead of `save_interval_s`. None saves by time.
        save_total_limit: number of newest checkpoints that are kept.
        report_to: services that receive the figures of every step: "tensorboard", "wandb", "mlflow".
        backend: "sqlquarry" trains with our own engine, "trl" with TRL's `SFTTrainer`, which is slower. TRL ignores
            `share_prefixes`, trains no `trainable_tokens`, and recomputes all layers or none.
        sft_config: fields of TRL's `SFTConfig` as JSON values, only for backend "trl". A copy that cannot be changed.
            ``completion_only_loss=False`` learns the complete text instead of the answers. Rows are packed with the
            strategy "bfd" unless ``packing`` is False. ``per_device_train_batch_size`` and
            ``gradient_accumulation_steps`` replace `records_per_step`.

    Raises:
        ConfigError: a field has an invalid value. The message lists all such fields.
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
    backend: Literal["sqlquarry", "trl"] = "sqlquarry"
    sft_config: Mapping[str, object] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("target_modules", "trainable_tokens", "report_to"):
            value = getattr(self, name)
            object.__setattr__(self, name, tuple(value) if isinstance(value, list) else value)
        rules = {
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
                self.trainable_tokens in ("auto", None) or (bool(self.trainable_tokens) and all(self.trainable_tokens)),
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
            "save_total_limit": (self.save_total_limit >= 2, "at least 2, so that one remains if the last is damaged"),
        }
        # PyYAML reads 1e-4 as text.
        object.__setattr__(self, "sft_config", yaml_numbers(dict(self.sft_config)))
        problems = [*sft_problems(self.sft_config, self.backend)]
        if self.backend == "trl":
            rules |= {
                # TRL multiplies with the head's own matrix, so its rows would silently not be trained.
                "trainable_tokens": (self.trainable_tokens is None, 'None with backend="trl"'),
                "sharding": (self.sharding != "hybrid", '"auto", "full" or "none" with backend="trl"'),
                "gradient_checkpointing": (
                    isinstance(self.gradient_checkpointing, bool | str),
                    '"auto", True or False with backend="trl"',
                ),
            }
        check_rules(self, rules, *problems)
        object.__setattr__(self, "sft_config", SFTFields(json.loads(json.dumps(dict(self.sft_config)))))

    @classmethod
    def published(cls, **changes: object) -> Self:
        """Return the published recipe, which trains with TRL: AWS's notebook "customized-text-to-sql-model".

        The notebook runs 16 rows of 3,072 tokens per step on 4 GPUs, which is a batch of 1 and 4 accumulated steps on
        each. TRL 1.16 and our loader differ from the notebook's TRL 0.8.6 in these points:

        - Packing that mixes and cuts records is called "wrapped", and is done for each 1,000 records.
        - Attention is "sdpa", and activations are recomputed without reentrant autograd. Both compute the same values.
        - 4-bit weights are stored as float32 instead of bfloat16, because FSDP changes bfloat16 (see
          `QuantizationRecipe`).
        - `warmup_ratio` has no effect with a constant rate, as in the notebook.

        Args:
            changes: fields that differ from the recipe. The fields in ``sft_config`` replace only those of the same
                name.

        Source: aws-samples/amazon-bedrock-samples, customized-text-to-sql-model.ipynb.
        """
        sft_config = {
            "completion_only_loss": False,
            "packing": True,
            "packing_strategy": "wrapped",
            "per_device_train_batch_size": 1,
            "gradient_accumulation_steps": 4,
            "lr_scheduler_type": "constant",
            "optim": "adamw_torch",
        }
        recipe: dict[str, object] = {
            "backend": "trl",
            "num_train_epochs": 2,
            "learning_rate": 2e-4,
            "warmup_ratio": 0.03,
            "max_length": 3072,
            "lora_r": 16,
            "lora_alpha": 8,
            "lora_dropout": 0.05,
            "gradient_checkpointing": True,
            "max_grad_norm": 0.3,
        }
        given = changes.get("sft_config", {})
        merged = {**sft_config, **given} if isinstance(given, Mapping) else given
        fields: dict[str, Any] = recipe | changes | {"sft_config": merged}
        return cls(**fields)

    @property
    def learns_whole_text(self) -> bool:
        """Whether the loss is on every token of a record, not only on its answer."""
        return self.sft_config.get("completion_only_loss") is False

    @property
    def packing_strategy(self) -> str | None:
        """TRL's name of the way in which records become rows, or None if each record is a row of its own."""
        return str(self.sft_config.get("packing_strategy", "bfd")) if self.sft_config.get("packing", True) else None

    @property
    def cuts_records(self) -> bool:
        """Whether records that do not fit the rest of a row are cut and continue in the next one."""
        return self.learns_whole_text and self.packing_strategy in ("wrapped", "bfd_split")

    def recomputed_layers(self, layers: int, *, cuda: bool) -> int:
        """Return the number of recomputed layers out of `layers`. "auto" counts as all on CUDA and none on a CPU."""
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
        """Return the number of processes that share one copy of the base. "auto" counts as all processes."""
        return {"none": 1, "hybrid": processes // machines}.get(self.sharding, processes)

    def uses_cuda_graphs(self, *, cuda: bool, shard_group_size: int) -> bool:
        """Return whether a row is launched as one CUDA graph.

        A graph can contain neither dropout nor weights in CPU memory. Runs with `trainable_tokens` do not use graphs,
        because this has not been tested on a GPU.

        If a group of processes shares the base, FSDP2 copies addresses from pinned memory. Since 2.11, torch keeps that
        memory for replays of a graph (pytorch #167507).
        """
        fixed = cuda and self.compiles_layers(cuda=cuda) and self.uses_flex_attention(cuda=cuda)
        fixed = fixed and not self.lora_dropout and not self.trainable_tokens
        return fixed and (shard_group_size == 1 or (not self.cpu_offload and _torch_version() >= (2, 11)))

    @property
    def holds_4bit_weights(self) -> bool:
        """Whether linear weights are in memory as 4-bit values."""
        return self.quantization is not None and self.hold_dequantized is not True

    @property
    def identity(self) -> dict[str, object]:
        """Fields that the adapter depends on, ready for JSON. A run resumes only from checkpoints with equal fields."""
        fields: dict[str, object] = json.loads(json.dumps(dataclasses.asdict(self)))
        # Runs of our own engine keep the identity from before there was another one.
        left_out = _NOT_IN_IDENTITY if self.backend == "trl" else {*_NOT_IN_IDENTITY, "backend", "sft_config"}
        return {name: value for name, value in fields.items() if name not in left_out}


@functools.cache
def _torch_version() -> tuple[int, ...]:
    return tuple(int(number) for number in version("torch").split(".")[:2])  # does not import torch


def learning_rate_for(hidden_size: int) -> float:
    """Return a peak learning rate for LoRA on a Llama of this width: 5e-4 · (2000 / hidden_size)^0.775.

    It is 1.3e-3 at width 576 and 2.9e-4 at 4096.

    Source: Thinking Machines Lab, "LoRA Without Regret" (2025). They fitted the rate to Llama models: it is ten times
    that of full fine-tuning and falls with the width.
    """
    return float(5e-4 * (2000 / hidden_size) ** 0.775)


DEFAULT_CONFIG = TrainingConfig()
