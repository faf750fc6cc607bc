"""Run the forward pass of the Llama family in fp32, with one projection in memory at a time.

All sequences go through a layer before the next layer's weights are read, so memory does not grow with depth.
The code follows transformers' modeling_llama, modeling_mistral, modeling_qwen2 and modeling_qwen3. The experts of
mixture models are in `experts`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.merging.verification.experts import ExpertLayer

if TYPE_CHECKING:
    import torch

_MODEL_TYPES = ("llama", "mistral", "mixtral", "qwen2", "qwen3", "qwen3_moe")


class ModelWeights(Protocol):
    """A model's parameters, by their names in the checkpoint."""

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the embeddings of tokens in fp32, (tokens,) -> (tokens, hidden)."""
        ...

    def vector(self, name: str) -> torch.Tensor | None:
        """Return a norm's weight in fp32, or None if the model has no tensor of this name."""
        ...

    def linear(self, module: str, x: torch.Tensor) -> torch.Tensor:
        """Apply a linear layer with its bias, (tokens, in) -> (tokens, out)."""
        ...


@dataclass(frozen=True, slots=True)
class Architecture:
    """The hyperparameters of a model of the Llama family.

    Args:
        layers: number of decoder layers.
        heads: number of query heads.
        kv_heads: number of key and value heads.
        head_dim: width of a head.
        epsilon: epsilon of the RMS norms.
        theta: base of the rotary frequencies.
        rope: the rotary scaling, as in config.json.
        window: number of positions that a token sees with sliding-window attention. None means all positions.
        experts: the layers of experts, or None if the model has no experts.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    epsilon: float
    theta: float
    rope: JsonObject
    window: int | None
    experts: ExpertLayer | None

    @classmethod
    def of(cls, config: JsonObject) -> Architecture:
        """Return the architecture that config.json describes.

        Raises:
            UnsupportedModelError: this architecture, or this variant of it, is not implemented here.
        """
        rope = {**(config.get("rope_parameters") or config.get("rope_scaling") or {})}
        kind = rope.get("rope_type") or rope.get("type") or "default"
        missing = [
            f"{field} {value!r}"
            for field, value, known in (
                ("model_type", config.get("model_type"), _MODEL_TYPES),
                ("hidden_act", config.get("hidden_act", "silu"), ("silu",)),
                ("rope_type", kind, ("default", "linear", "llama3")),
                ("partial_rotary_factor", config.get("partial_rotary_factor", 1.0), (1.0,)),
            )
            if value not in known
        ]
        if missing:
            raise UnsupportedModelError(
                f"verification is not available for this model ({', '.join(missing)}). It supports "
                f"{', '.join(_MODEL_TYPES)}. Merge without evaluation records and thresholds, and judge the answers."
            )
        heads = int(config["num_attention_heads"])
        sliding = config.get("use_sliding_window", config["model_type"] in ("mistral", "mixtral"))
        return cls(
            layers=int(config["num_hidden_layers"]),
            heads=heads,
            kv_heads=int(config.get("num_key_value_heads") or heads),
            head_dim=int(config.get("head_dim") or config["hidden_size"] // heads),
            epsilon=float(config.get("rms_norm_eps", 1e-6)),
            theta=float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0),
            rope=rope | {"rope_type": kind},
            window=config.get("sliding_window") if sliding else None,
            experts=ExpertLayer.of(config),
        )

    def require_within_window(self, longest: int) -> None:
        """Refuse sequences for which sliding-window attention would differ from full attention.

        Raises:
            UnsupportedModelError: a sequence is longer than the window.
        """
        if self.window is not None and longest > self.window:
            raise UnsupportedModelError(
                f"verification is not available for sequences of {longest} tokens, because the model's sliding-window "
                f"attention covers only {self.window}. Give shorter records."
            )

    def frequencies(self) -> torch.Tensor:
        """Return the rotary frequencies, (head_dim / 2,), as in transformers.modeling_rope_utils."""
        import torch

        powers = torch.arange(0, self.head_dim, 2, dtype=torch.int64).float() / self.head_dim
        inverse: torch.Tensor = 1.0 / (self.theta**powers)
        if self.rope["rope_type"] == "linear":
            return inverse / float(self.rope["factor"])
        if self.rope["rope_type"] == "llama3":
            return _llama3(inverse, self.rope)
        return inverse


def _llama3(inverse: torch.Tensor, rope: JsonObject) -> torch.Tensor:
    """Apply Llama 3.1's scaling: divide the frequencies of long waves by `factor`, keep those of short waves.

    The frequencies in between are interpolated.
    """
    import torch

    factor, low, high = rope["factor"], rope["low_freq_factor"], rope["high_freq_factor"]
    context = rope["original_max_position_embeddings"]
    wavelength = 2 * math.pi / inverse
    smooth = (context / wavelength - low) / (high - low)
    between = (1 - smooth) * inverse / factor + smooth * inverse
    scaled = torch.where(wavelength > context / low, inverse / factor, inverse)
    return torch.where((wavelength <= context / low) & (wavelength >= context / high), between, scaled)


def final_states(architecture: Architecture, weights: ModelWeights, sequences: Sequence[Sequence[int]]) -> torch.Tensor:
    """Return the normalized states that enter the output head, (tokens of all sequences, hidden), in fp32.

    Raises:
        UnsupportedModelError: a sequence is longer than the model's attention window.
    """
    import torch

    lengths = [len(sequence) for sequence in sequences]
    architecture.require_within_window(max(lengths))
    positions = torch.cat([torch.arange(length) for length in lengths])
    angles = torch.outer(positions.float(), architecture.frequencies())[:, None].repeat(1, 1, 2)
    layout = _Layout(lengths, angles.cos(), angles.sin())
    x = weights.embed(torch.tensor([token for sequence in sequences for token in sequence]))
    for number in range(architecture.layers):
        layer = f"model.layers.{number}"
        normed = _normed(x, weights, f"{layer}.input_layernorm.weight", architecture.epsilon)
        x += _attention(architecture, weights, f"{layer}.self_attn", normed, layout)
        normed = _normed(x, weights, f"{layer}.post_attention_layernorm.weight", architecture.epsilon)
        if architecture.experts and number not in architecture.experts.dense_layers:
            x += architecture.experts.mixed(weights.linear, layer, normed)
            continue
        gate = torch.nn.functional.silu(weights.linear(f"{layer}.mlp.gate_proj", normed), inplace=True)
        gate *= weights.linear(f"{layer}.mlp.up_proj", normed)
        x += weights.linear(f"{layer}.mlp.down_proj", gate)
        del gate, normed
    return _normed(x, weights, "model.norm.weight", architecture.epsilon)


def _normed(x: torch.Tensor, weights: ModelWeights, name: str, epsilon: float) -> torch.Tensor:
    """Apply an RMS norm over the last dimension (Zhang & Sennrich 2019, arXiv:1910.07467).

    Return `x` unchanged if the model has no norm of this name.
    """
    import torch

    weight = weights.vector(name)
    if weight is None:
        return x
    return x * torch.rsqrt(x.square().mean(dim=-1, keepdim=True) + epsilon) * weight


@dataclass(frozen=True, slots=True)
class _Layout:
    """The lengths of the concatenated sequences, and the rotation of each position, (tokens, 1, head_dim)."""

    lengths: Sequence[int]
    cos: torch.Tensor
    sin: torch.Tensor

    def rotated(self, x: torch.Tensor) -> torch.Tensor:
        """Apply rotary position embedding (Su et al. 2021, arXiv:2104.09864) to halves of a head, as transformers."""
        import torch

        first, second = x.chunk(2, dim=-1)
        return x * self.cos + torch.cat([-second, first], dim=-1) * self.sin


def _attention(
    architecture: Architecture, weights: ModelWeights, module: str, x: torch.Tensor, layout: _Layout
) -> torch.Tensor:
    import torch

    def heads(name: str) -> torch.Tensor:
        return weights.linear(f"{module}.{name}", x).view(len(x), -1, architecture.head_dim)

    # Qwen3 normalizes each head's queries and keys. The other models have no such weights.
    q = layout.rotated(_normed(heads("q_proj"), weights, f"{module}.q_norm.weight", architecture.epsilon))
    k = layout.rotated(_normed(heads("k_proj"), weights, f"{module}.k_norm.weight", architecture.epsilon))
    parts = []
    by_sequence = (torch.split(tensor, list(layout.lengths)) for tensor in (q, k, heads("v_proj")))
    for sequence in zip(*by_sequence, strict=True):
        one, other, value = (tensor.transpose(0, 1)[None] for tensor in sequence)
        grouped = architecture.kv_heads != architecture.heads
        mixed = torch.nn.functional.scaled_dot_product_attention(one, other, value, is_causal=True, enable_gqa=grouped)
        parts.append(mixed[0].transpose(0, 1).flatten(1))
    return weights.linear(f"{module}.o_proj", torch.cat(parts))
