"""One packed row as the model's inputs, and the loss on its answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sqlquarry.prompt import IGNORED_LABEL
from sqlquarry.training.packing import Row

if TYPE_CHECKING:
    import torch


def model_inputs(row: Row, device: torch.device | str = "cpu", *, flex_tokens: int | None = None) -> dict[str, Any]:
    """A row as tensors, all (1, tokens), the mask (1, 1, tokens, tokens).

    Args:
        row: the row.
        device: where the tensors are made.
        flex_tokens: for a model with flex_attention, whose kernel is compiled for one length: pad the row to it.
    """
    import torch

    device = torch.device(device)
    if flex_tokens is not None:
        row = row.padded(flex_tokens)
    return {
        "input_ids": torch.tensor([row.input_ids], device=device),
        "labels": torch.tensor([row.labels], device=device),
        "position_ids": torch.tensor([row.positions], device=device),
        "attention_mask": row.attention_mask().to(device) if flex_tokens is None else row.block_mask(device),
    }


def answer_loss(model: Any, inputs: dict[str, Any], answer_tokens: int | None) -> torch.Tensor:
    """Cross-entropy over the answer tokens, in float32; logits are made for those tokens only.

    Args:
        model: a causal language model that knows `logits_to_keep`.
        inputs: one row as `model_inputs` gives it.
        answer_tokens: what to divide the sum by; a step gives the count over all its rows, on all processes, so that
            every answer token weighs the same. None divides by the row's own count.
    """
    import torch

    inputs = dict(inputs)
    labels = inputs.pop("labels")[0]
    # A token is predicted from the one before it, which lies in the same example: an answer never begins a branch.
    targets = (labels != IGNORED_LABEL).nonzero().flatten()
    logits = model(**inputs, logits_to_keep=targets - 1, use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits.float(), labels[targets], reduction="sum")
    return loss / (len(targets) if answer_tokens is None else answer_tokens)
