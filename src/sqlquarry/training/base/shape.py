"""The sizes of a base model, read from config.json and the headers of its safetensors without reading weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from sqlquarry.checkpoints.attention import position_limit
from sqlquarry.checkpoints.model_files import weight_files
from sqlquarry.checkpoints.safetensors_header import read_header
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import read_object

# These limits are several times the sizes of any published model. They bound the work that a malicious file can cause.
_LARGEST = {
    "hidden_size": 2**20,
    "intermediate_size": 2**22,
    "moe_intermediate_size": 2**22,
    "num_attention_heads": 2**16,
    "num_key_value_heads": 2**16,
    "num_hidden_layers": 10_000,
    "head_dim": 2**16,
    "vocab_size": 2**26,
    "num_local_experts": 2**16,
    "num_experts": 2**16,
    "num_experts_per_tok": 2**16,
}

TensorHeader = tuple[str, tuple[int, ...]]  # dtype and shape as in the header of a safetensors file


@dataclass(frozen=True)
class ModelShape:
    """A causal decoder's sizes.

    Args:
        linears: the decoder's linear layers, name -> (outputs, inputs). They are quantized and adapted by LoRA.
        expert_parameters: parameters of all experts. transformers 5 stores a layer's experts in two tensors, which
            bitsandbytes does not quantize and PEFT's "all-linear" adapts.
        active_expert_share: share of the experts that a token passes through, or 0 without experts.
        other_parameters: parameters of embeddings, head, norms and routers.
        layers: number of decoder layers.
        hidden: width of the residual stream.
        attention: width of all query heads together.
        key_value: width of all key heads together.
        head: width of one head.
        mlp: inner width of the MLP that a token passes through, or of all its experts together.
        vocabulary: number of rows of the head.
        tied: whether head and embeddings are one matrix.
        dtypes: dtypes of the stored tensors.
        experts: number of experts in a layer with experts.
        expert_layers: number of layers with experts.
        expert_mlp: inner width of one expert.
        positions: length in tokens of the longest sequence that the model supports, or None if config.json has no
            limit.
    """

    linears: Mapping[str, tuple[int, int]]
    expert_parameters: int
    active_expert_share: float
    other_parameters: int
    layers: int
    hidden: int
    attention: int
    key_value: int
    head: int
    mlp: int
    vocabulary: int
    tied: bool
    dtypes: frozenset[str]
    experts: int = 0
    expert_layers: int = 0
    expert_mlp: int = 0
    positions: int | None = None

    @classmethod
    def read(cls, directory: Path) -> ModelShape:
        """Read the shape of a base model on disk.

        Raises:
            UnsupportedModelError: a file is missing or malformed.
        """
        try:
            config = read_object(directory / "config.json")
            headers = [read_header(path) for path in weight_files(directory)]
            tensors = {name: (one.dtype, one.shape) for header in headers for name, one in header.tensors.items()}
            return cls.of(config, tensors)
        except (OSError, ValueError) as error:
            raise UnsupportedModelError(
                f"the sizes of the base model in {directory} cannot be read ({type(error).__name__}: {error}). "
                "It needs config.json and complete safetensors files."
            ) from error

    @classmethod
    def of(cls, config: Mapping[str, object], tensors: Mapping[str, TensorHeader]) -> ModelShape:
        """Return the shape that config.json's fields and each tensor's dtype and shape describe.

        Raises:
            UnsupportedModelError: a size is missing or is not a whole number in the allowed range.
        """
        tied = bool(config.get("tie_word_embeddings"))
        weights = _count_weights(tensors, tied=tied)
        hidden, heads = _size(config, "hidden_size"), _size(config, "num_attention_heads")
        head = _optional_size(config, "head_dim") or hidden // heads
        count = _optional_size(config, "num_local_experts") or _optional_size(config, "num_experts") or 0
        active = (_optional_size(config, "num_experts_per_tok") or 0) if count else 0
        mlp = (_optional_size(config, "moe_intermediate_size") or _size(config, "intermediate_size")) if count else 0
        if not head or active > count:
            raise UnsupportedModelError(
                f"config.json describes {heads} heads for a hidden_size of {hidden}, and {active} of {count} active "
                "experts, which is impossible. Download the base model's config.json again."
            )
        return cls(
            linears=weights.linears,
            expert_parameters=weights.experts,
            active_expert_share=active / count if count else 0.0,
            other_parameters=weights.other,
            layers=_size(config, "num_hidden_layers"),
            hidden=hidden,
            attention=heads * head,
            key_value=(_optional_size(config, "num_key_value_heads") or heads) * head,
            head=head,
            mlp=mlp * active if count else _size(config, "intermediate_size"),
            vocabulary=_size(config, "vocab_size"),
            tied=tied,
            dtypes=frozenset(dtype for dtype, _ in tensors.values()),
            experts=count,
            expert_layers=weights.expert_layers,
            expert_mlp=mlp if count else 0,
            positions=position_limit(config),
        )

    @cached_property
    def linear_parameters(self) -> int:
        """Number of parameters in the decoder's linear layers."""
        return sum(outputs * inputs for outputs, inputs in self.linears.values())

    @cached_property
    def largest_linear(self) -> int:
        """Number of parameters in the largest linear layer."""
        return max((outputs * inputs for outputs, inputs in self.linears.values()), default=0)

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.linear_parameters + self.expert_parameters + self.other_parameters

    @property
    def active_parameters(self) -> int:
        """Number of the decoder's weights that each token is multiplied with."""
        return self.linear_parameters + round(self.expert_parameters * self.active_expert_share)

    def targeted(self, target_modules: str | Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return the linear layers that LoRA adapts: all, or those whose name ends with a target, as in PEFT."""
        if target_modules == "all-linear":
            return dict(self.linears)
        return {
            name: sizes
            for name, sizes in self.linears.items()
            if any(name == target or name.endswith(f".{target}") for target in target_modules)
        }

    def adapter_parameters(self, target_modules: str | Sequence[str], rank: int, *, expert_share: float = 1.0) -> int:
        """Count the parameters of a LoRA update: rank · (inputs + outputs) for each adapted layer (arXiv:2106.09685).

        With "all-linear", PEFT 0.21 also adapts routers and experts. An expert's two input matrices are fused and get
        twice the rank.

        Args:
            target_modules: as in `TrainingConfig`.
            rank: rank of the update.
            expert_share: share of the experts to count.
        """
        widths = float(sum(outputs + inputs for outputs, inputs in self.targeted(target_modules).values()))
        if target_modules == "all-linear":
            expert = 2 * (self.hidden + 2 * self.expert_mlp) + self.expert_mlp + self.hidden
            router = self.hidden + self.experts if self.experts else 0
            widths += self.expert_layers * (self.experts * expert * expert_share + router)
        return round(rank * widths)


class _WeightCounts(NamedTuple):
    linears: dict[str, tuple[int, int]]
    experts: int
    other: int
    expert_layers: int


def _count_weights(tensors: Mapping[str, TensorHeader], *, tied: bool) -> _WeightCounts:
    linears: dict[str, tuple[int, int]] = {}
    experts = other = 0
    with_experts = set()
    for name, (_, sizes) in tensors.items():
        module = name.removesuffix(".weight")
        if not _are_sizes(sizes):
            raise UnsupportedModelError(
                f"tensor {name:.200} has the invalid shape {sizes!r:.200}. Download the base model again."
            )
        parameters = math.prod(sizes)
        if ".experts." in name:
            experts += parameters
            with_experts.add(name.partition(".experts.")[0])
        elif ".layers." in name and len(sizes) == 2 and module != name and not module.endswith(".gate"):
            linears[module] = (sizes[0], sizes[1])
        elif not (tied and module == "lm_head"):  # some checkpoints contain the tied head a second time
            other += parameters
    return _WeightCounts(linears, experts, other, len(with_experts))


def _size(config: Mapping[str, object], key: str) -> int:
    """Return a size in config.json.

    Raises:
        UnsupportedModelError: the size is missing or is not a whole number in the allowed range.
    """
    value, largest = config.get(key), _LARGEST[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= largest:
        raise UnsupportedModelError(
            f"{key} in config.json is {value!r:.80}, but must be a whole number from 1 to {largest:,}. "
            "Download the base model's config.json again."
        )
    return value


def _optional_size(config: Mapping[str, object], key: str) -> int | None:
    # A size that does not apply may be null or 0.
    return None if config.get(key) is None or config[key] == 0 else _size(config, key)


def _are_sizes(values: Sequence[object]) -> bool:
    return all(isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**63 for value in values)
