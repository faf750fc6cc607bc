"""What can be chosen about a training run, checked all at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from sqlquarry.errors import ConfigError


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
        quantization: "nf4" trains on 4-bit base weights (QLoRA), None on the weights as they are (LoRA).
        gradient_checkpointing: recompute activations in the backward pass; None does so on CUDA only.
        max_gradient_norm: gradients are scaled down to this norm.
        device: "auto", "cpu" or "cuda".
        seed: seeds adapter, packing and order.

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
    quantization: Literal["nf4"] | None = "nf4"
    gradient_checkpointing: bool | None = None
    max_gradient_norm: float = 1.0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    seed: int = 42

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
            "target_modules": (
                self.target_modules == "all-linear"
                or (isinstance(self.target_modules, tuple) and len(self.target_modules) > 0),
                "'all-linear' or a tuple of layer names",
            ),
            "quantization": (self.quantization in ("nf4", None), "'nf4' or None"),
            "max_gradient_norm": (self.max_gradient_norm > 0, "above 0"),
            "device": (self.device in ("auto", "cpu", "cuda"), "'auto', 'cpu' or 'cuda'"),
        }
        bad = [
            f"{name} is {getattr(self, name)!r}, but must be {rule}"
            for name, (fine, rule) in checks.items()
            if not fine
        ]
        if bad:
            raise ConfigError("TrainingConfig: " + "; ".join(bad))


def learning_rate_for(hidden_size: int) -> float:
    """A peak rate for LoRA on a Llama of this width: 5e-4 · (2000 / hidden_size)^0.775.

    Source: Thinking Machines Lab, "LoRA Without Regret" (2025), the rate fitted over Llama models: ten times that of
    full fine-tuning, falling with width. It gives 1.3e-3 at width 576 and 2.9e-4 at 4096.
    """
    return float(5e-4 * (2000 / hidden_size) ** 0.775)
