"""The sizes of a base model, read from its config.json and the headers of its safetensors; no weight is read."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sqlquarry.errors import UnsupportedModelError

_HEADER_LENGTH_BYTES = 8  # https://huggingface.co/docs/safetensors, "Format"


@dataclass(frozen=True)
class ModelShape:
    """A causal decoder's sizes.

    Args:
        linears: the decoder's linear layers, name -> (outputs, inputs): what is quantised and what LoRA reaches.
        expert_parameters: parameters of all experts. transformers 5 keeps a layer's experts in two tensors, which
            bitsandbytes does not quantise and PEFT's "all-linear" adapts.
        active_expert_share: share of the experts that a token goes through; 0 without experts.
        other_parameters: embeddings, head, norms, routers.
        layers: decoder layers.
        hidden: width of the residual stream.
        attention: width of all query heads together.
        key_value: width of all key heads together.
        head: width of one head.
        mlp: inner width of the MLP that a token goes through (of all its experts together).
        vocabulary: rows of the head.
        tied: whether head and embeddings are one matrix.
        dtypes: dtypes of the stored tensors.
        experts: experts of a layer that has some.
        expert_layers: layers that have some.
        expert_mlp: inner width of one expert.
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

    @classmethod
    def read(cls, directory: Path) -> ModelShape:
        """The shape of a base model on disk.

        Raises:
            UnsupportedModelError: a file is not what it should be.
        """
        try:
            config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
            tensors = {name: entry for path in weight_files(directory) for name, entry in _header(path)}
            return cls.of(config, {name: (entry["dtype"], tuple(entry["shape"])) for name, entry in tensors.items()})
        except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
            raise UnsupportedModelError(
                f"the sizes of the base model in {directory} cannot be read ({type(error).__name__}: {error}). "
                "It needs config.json and whole safetensors."
            ) from error

    @classmethod
    def of(cls, config: Mapping[str, Any], tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> ModelShape:
        """The shape from config.json's fields and each tensor's dtype and shape."""
        tied = bool(config.get("tie_word_embeddings"))
        linears: dict[str, tuple[int, int]] = {}
        experts = other = 0
        with_experts = set()
        for name, (_, sizes) in tensors.items():
            module = name.removesuffix(".weight")
            parameters = 1
            for size in sizes:
                parameters *= size
            if ".experts." in name:
                experts += parameters
                with_experts.add(name.partition(".experts.")[0])
            elif ".layers." in name and len(sizes) == 2 and module != name and not module.endswith(".gate"):
                linears[module] = (sizes[0], sizes[1])
            elif not (tied and module == "lm_head"):  # some checkpoints hold the tied head a second time
                other += parameters
        hidden, heads = int(config["hidden_size"]), int(config["num_attention_heads"])
        head = int(config.get("head_dim") or hidden // heads)
        count = int(config.get("num_local_experts") or config.get("num_experts") or 0)
        active = int(config.get("num_experts_per_tok") or 0) if count else 0
        mlp = int(config.get("moe_intermediate_size") or config["intermediate_size"]) if count else 0
        return cls(
            linears=linears,
            expert_parameters=experts,
            active_expert_share=active / count if count else 0.0,
            other_parameters=other,
            layers=int(config["num_hidden_layers"]),
            hidden=hidden,
            attention=heads * head,
            key_value=int(config.get("num_key_value_heads") or heads) * head,
            head=head,
            mlp=mlp * active if count else int(config["intermediate_size"]),
            vocabulary=int(config["vocab_size"]),
            tied=tied,
            dtypes=frozenset(dtype for dtype, _ in tensors.values()),
            experts=count,
            expert_layers=len(with_experts),
            expert_mlp=mlp if count else 0,
        )

    @cached_property
    def linear_parameters(self) -> int:
        """Parameters of the decoder's linear layers."""
        return sum(outputs * inputs for outputs, inputs in self.linears.values())

    @cached_property
    def largest_linear(self) -> int:
        """Parameters of the largest of them."""
        return max((outputs * inputs for outputs, inputs in self.linears.values()), default=0)

    @property
    def parameters(self) -> int:
        """All parameters."""
        return self.linear_parameters + self.expert_parameters + self.other_parameters

    @property
    def active_parameters(self) -> int:
        """Weights of the decoder that each token is multiplied with."""
        return self.linear_parameters + round(self.expert_parameters * self.active_expert_share)

    def targeted(self, target_modules: str | tuple[str, ...]) -> dict[str, tuple[int, int]]:
        """The linear layers that LoRA adapts: all, or those whose name is or ends with a target (PEFT's rule)."""
        if target_modules == "all-linear":
            return dict(self.linears)
        return {
            name: sizes
            for name, sizes in self.linears.items()
            if any(name == target or name.endswith(f".{target}") for target in target_modules)
        }

    def adapter_parameters(self, target_modules: str | tuple[str, ...], rank: int, *, expert_share: float = 1.0) -> int:
        """Parameters of a LoRA update: rank · (inputs + outputs) for each adapted layer (arXiv:2106.09685).

        With "all-linear" PEFT 0.21 adapts routers and experts too: each expert's two input matrices, which are fused,
        with twice the rank, and its output matrix.

        Args:
            target_modules: as in `TrainingConfig`.
            rank: of the update.
            expert_share: share of the experts to count.
        """
        widths = float(sum(outputs + inputs for outputs, inputs in self.targeted(target_modules).values()))
        if target_modules == "all-linear":
            expert = 2 * (self.hidden + 2 * self.expert_mlp) + self.expert_mlp + self.hidden
            router = self.hidden + self.experts if self.experts else 0
            widths += self.expert_layers * (self.experts * expert * expert_share + router)
        return round(rank * widths)


def weight_files(directory: Path) -> list[Path]:
    """The safetensors that transformers reads of a folder, which may hold others: one, or those that an index lists.

    Raises:
        UnsupportedModelError: the index cannot be read, or lists others beside the one.
    """
    single, index = directory / "model.safetensors", directory / "model.safetensors.index.json"
    if not index.is_file():
        return [single]
    try:
        names = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnsupportedModelError(
            f"{index} is no index of weights ({type(error).__name__}: {error}). Download the base again."
        ) from error
    if single.is_file() and names != {single.name}:
        raise UnsupportedModelError(
            f"base model {directory} holds {single.name} and other weights that {index.name} lists: which are meant "
            "cannot be told. Move one of the two away."
        )
    return [directory / name for name in sorted(names)]


def _header(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(_HEADER_LENGTH_BYTES))
        if length > path.stat().st_size:
            raise ValueError(f"{path.name} is no safetensors file")
        header: dict[str, dict[str, Any]] = json.loads(file.read(length))
    yield from ((name, entry) for name, entry in header.items() if name != "__metadata__")
