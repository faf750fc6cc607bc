"""Run a layer of experts. The router picks a few experts for each token and mixes their outputs.

The code follows transformers' modeling_mixtral and modeling_qwen3_moe.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.files.metadata import JsonObject

if TYPE_CHECKING:
    import torch

Linear = Callable[[str, "torch.Tensor"], "torch.Tensor"]
_PLACES = {
    "mixtral": ("block_sparse_moe", "num_local_experts", ("w1", "w3", "w2")),
    "qwen3_moe": ("mlp", "num_experts", ("gate_proj", "up_proj", "down_proj")),
}


@dataclass(frozen=True, slots=True)
class ExpertLayer:
    """The experts of a model.

    Args:
        module: name of the module that contains the router and the experts of a layer.
        projections: names of an expert's gate, up and down projections.
        count: number of experts in a layer.
        per_token: number of experts that each token goes through.
        normalized: whether the weights of the chosen experts are scaled to a sum of 1.
        dense_layers: numbers of the layers without experts.
    """

    module: str
    projections: tuple[str, str, str]
    count: int
    per_token: int
    normalized: bool
    dense_layers: frozenset[int]

    @classmethod
    def of(cls, config: JsonObject) -> ExpertLayer | None:
        """Return the experts that config.json describes, or None if the model has no experts."""
        if config["model_type"] not in _PLACES:
            return None
        module, counted, projections = _PLACES[config["model_type"]]
        mixtral = config["model_type"] == "mixtral"
        step = 1 if mixtral else int(config.get("decoder_sparse_step", 1))
        named = () if mixtral else config.get("mlp_only_layers") or ()
        layers = range(int(config["num_hidden_layers"]))
        return cls(
            module=module,
            projections=projections,
            # transformers 5 uses Mixtral's key for the number of Qwen's experts.
            count=int(config.get(counted) or config["num_local_experts"]),
            per_token=int(config["num_experts_per_tok"]),
            normalized=mixtral or bool(config.get("norm_topk_prob", False)),
            dense_layers=frozenset(layer for layer in layers if layer in named or (layer + 1) % step),
        )

    def mixed(self, linear: Linear, layer: str, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs of the chosen experts, weighted by the router: (tokens, hidden) -> (tokens, hidden).

        Args:
            linear: applies the linear layer of this name.
            layer: the layer's name, such as ``model.layers.3``.
            x: the normalized states.
        """
        import torch

        shares = linear(f"{layer}.{self.module}.gate", x).softmax(dim=-1)
        shares, chosen = shares.topk(self.per_token, dim=-1)
        if self.normalized:
            shares /= shares.sum(dim=-1, keepdim=True)
        y = torch.zeros_like(x)
        for expert in range(self.count):
            tokens, place = torch.where(chosen == expert)
            if len(tokens):
                gate, up, down = (f"{layer}.{self.module}.experts.{expert}.{name}" for name in self.projections)
                inner = torch.nn.functional.silu(linear(gate, x[tokens])) * linear(up, x[tokens])
                y[tokens] += shares[tokens, place, None] * linear(down, inner)
        return y
