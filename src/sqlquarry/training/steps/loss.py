"""One packed row as the model's inputs, and the loss on its answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlquarry.checkpoints.attention import Windows
from sqlquarry.prompt import IGNORED_LABEL
from sqlquarry.training.encoding.packing import Row, block_mask

if TYPE_CHECKING:
    import torch


class RowShape(NamedTuple):
    """What rows are padded to where all must have one shape: tokens, and answer tokens."""

    tokens: int
    answers: int


def row_tensors(row: Row, shape: RowShape | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """A row's four numbers of each token (4, tokens), and where it is learnt from and what (2, answers), on the CPU."""
    import torch

    # A token is predicted from the one before it, which lies in the same example: an answer never begins a branch.
    learnt = [(place - 1, label) for place, label in enumerate(row.labels) if label != IGNORED_LABEL]
    if shape is not None:
        row = row.padded(shape.tokens)
        learnt += [(0, IGNORED_LABEL)] * (shape.answers - len(learnt))
    tokens = torch.tensor([row.input_ids, row.positions, row.families, row.branches])
    return tokens, torch.tensor(learnt, dtype=torch.long).reshape(-1, 2).t().contiguous()


def model_inputs(
    row: Row,
    device: torch.device | str = "cpu",
    *,
    shape: RowShape | None = None,
    flex: bool = False,
    windows: Windows = None,
) -> dict[str, Any]:
    """What `answer_loss` takes of a row.

    Args:
        row: the row.
        device: where the tensors are made.
        shape: what to pad the row to, for what is compiled for one shape.
        flex: for a model with flex_attention.
        windows: of the model's layers (see `windows_of`).
    """
    tokens, answers = (tensor.to(device) for tensor in row_tensors(row, shape))
    if flex:
        return flex_inputs(tokens, answers, windows)
    if shape is not None:
        row = row.padded(shape.tokens)
    return _inputs(tokens, answers) | _masks(windows, lambda window: row.attention_mask(window).to(device))


def _inputs(tokens: torch.Tensor, answers: torch.Tensor) -> dict[str, Any]:
    """The inputs of a row from `row_tensors`, without its mask."""
    return {"input_ids": tokens[:1], "position_ids": tokens[1:2], "predicted_from": answers[0], "labels": answers[1]}


def flex_inputs(tokens: torch.Tensor, answers: torch.Tensor, windows: Windows = None) -> dict[str, Any]:
    """The inputs of a row from `row_tensors`, with the mask that flex_attention takes."""
    return _inputs(tokens, answers) | _masks(
        windows, lambda window: block_mask(tokens[1], tokens[2], tokens[3], window)
    )


def _masks(windows: Windows, mask: Callable[[int | None], Any]) -> dict[str, Any]:
    """The mask of all layers, or one for each kind of layer, as transformers takes them."""
    if isinstance(windows, Mapping):
        return {"attention_mask": {kind: mask(window) for kind, window in windows.items()}}
    return {"attention_mask": mask(windows)}


def entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Summed cross-entropy in float32 of logits (answers, vocabulary) of any dtype; labels of -100 do not count."""
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")


def answer_loss(model: Any, inputs: dict[str, Any], loss: Callable[..., torch.Tensor] = entropy) -> torch.Tensor:
    """Sum of the cross-entropy over a row's answer tokens, (); logits are made for those tokens only.

    Args:
        model: a causal language model that knows `logits_to_keep`.
        inputs: one row as `model_inputs` gives it.
        loss: `entropy`, or the same compiled.
    """
    inputs = dict(inputs)
    labels, kept = inputs.pop("labels"), inputs.pop("predicted_from")
    return loss(model(**inputs, logits_to_keep=kept, use_cache=False).logits[0], labels)
