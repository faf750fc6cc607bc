"""Compute an adapter's trained rows of embeddings and head directly (PEFT's `trainable_token_indices`).

In each forward pass PEFT copies the whole matrix to insert the rows, and in training it creates a gradient of the same
size. Each takes a gigabyte for an 8B model. This module recomputes only the values that the rows change.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from peft.tuners.trainable_tokens import TrainableTokensLayer


def run_token_rows_directly(model: torch.nn.Module) -> None:
    """Make embeddings and head of a PEFT model compute the adapter's rows separately. Leave other models unchanged."""
    import torch
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    for layer in model.modules():
        if isinstance(layer, TrainableTokensLayer):
            (name,) = layer.active_adapters
            rows = torch.tensor(layer.token_indices[name], device=layer.get_base_layer().weight.device)
            layer.register_buffer("token_rows", rows, persistent=False)
            layer.__class__ = _direct_layer()


@functools.cache
def _direct_layer() -> type:
    from peft.tuners.trainable_tokens import TrainableTokensLayer

    return type("DirectTokensLayer", (TrainableTokensLayer,), {"forward": _forward})


def _forward(layer: TrainableTokensLayer, inputs: torch.Tensor) -> torch.Tensor:
    """Embed token ids (…) as (…, hidden), or compute the logits (…, vocabulary) of states (…, hidden)."""
    import torch

    (name,) = layer.active_adapters
    outputs: torch.Tensor = layer.base_layer(inputs)
    rows = layer.trainable_tokens_delta[name].to(outputs.dtype)
    if isinstance(layer.base_layer, torch.nn.Embedding):
        chosen = inputs[..., None] == layer.token_rows  # (…, rows)
        return torch.where(chosen.any(dim=-1, keepdim=True), chosen.to(rows.dtype) @ rows, outputs)
    return outputs.index_copy_(-1, layer.token_rows, torch.nn.functional.linear(inputs, rows))
