"""Convert a packed row to the model's inputs, and compute the loss on its answers."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, NamedTuple, TypedDict

from sqlquarry.checkpoints.attention import Windows
from sqlquarry.tokenizing.encoded import IGNORED_LABEL
from sqlquarry.training.encoding.packing import PackedRow, RowTokens, block_mask

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from torch.nn.attention.flex_attention import BlockMask
    from transformers import PreTrainedModel

    Mask = torch.Tensor | BlockMask


class RowShape(NamedTuple):
    """Numbers of tokens and answer tokens to which rows are padded if all must have one shape."""

    tokens: int
    answers: int


def row_tensors(row: RowTokens, shape: RowShape | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a row's tokens and answers as two tensors on the CPU.

    The first, (4, tokens), has the id, position, family and suffix of each token. The second, (2, answers), has the
    index from which each answer token is predicted, and its label.
    """
    # A token is predicted from the token before it. An answer never begins a suffix, so both are in the same example.
    learned = [index for index, label in enumerate(row.labels) if label != IGNORED_LABEL]
    predicted_from, labels = [index - 1 for index in learned], [row.labels[index] for index in learned]
    if shape is not None:
        row = row.padded(shape.tokens)
        more = shape.answers - len(learned)
        predicted_from, labels = predicted_from + [0] * more, labels + [IGNORED_LABEL] * more
    return _matrix(row.input_ids, row.positions, row.families, row.suffixes), _matrix(predicted_from, labels)


def _matrix(*rows: list[int]) -> torch.Tensor:
    import torch

    if not rows[0]:
        return torch.empty(len(rows), 0, dtype=torch.long)
    # torch.tensor(rows) takes five times as long.
    return torch.stack([torch.frombuffer(array("q", row), dtype=torch.long) for row in rows])


class ModelInputs(TypedDict):
    """The inputs of `answer_loss` for one row.

    Keys:
        input_ids: token ids, (1, tokens).
        position_ids: positions of the tokens in their own examples, (1, tokens).
        predicted_from: indices of the tokens before the answer tokens, (answers,).
        labels: ids of the answer tokens, (answers,).
        attention_mask: the mask of all layers, or one mask for each type of layer, as in transformers.
    """

    input_ids: torch.Tensor
    position_ids: torch.Tensor
    predicted_from: torch.Tensor
    labels: torch.Tensor
    attention_mask: Mask | dict[str, Mask]


def model_inputs(
    row: PackedRow,
    device: torch.device | str = "cpu",
    *,
    shape: RowShape | None = None,
    flex: bool = False,
    windows: Windows = None,
) -> ModelInputs:
    """Return the inputs of `answer_loss` for a row.

    Args:
        row: the row.
        device: device of the tensors.
        shape: shape to which the row is padded for compiled code. None does not pad.
        flex: whether the model uses flex_attention.
        windows: attention windows of the model's layers (see `windows_of`).
    """
    built = row.tokens()
    tokens, answers = (tensor.to(device) for tensor in row_tensors(built, shape))
    if flex:
        return flex_inputs(tokens, answers, windows)
    padded = built if shape is None else built.padded(shape.tokens)
    return _inputs(tokens, answers, _masks(windows, lambda window: padded.attention_mask(window).to(device)))


def flex_inputs(tokens: torch.Tensor, answers: torch.Tensor, windows: Windows = None) -> ModelInputs:
    """Return the inputs of a row from the result of `row_tensors`, with a mask for flex_attention."""
    mask = _masks(windows, lambda window: block_mask(tokens[1], tokens[2], tokens[3], window))
    return _inputs(tokens, answers, mask)


def _inputs(tokens: torch.Tensor, answers: torch.Tensor, mask: Mask | dict[str, Mask]) -> ModelInputs:
    return ModelInputs(
        input_ids=tokens[:1],
        position_ids=tokens[1:2],
        predicted_from=answers[0],
        labels=answers[1],
        attention_mask=mask,
    )


def _masks(windows: Windows, mask: Callable[[int | None], Mask]) -> Mask | dict[str, Mask]:
    if isinstance(windows, Mapping):
        return {kind: mask(window) for kind, window in windows.items()}
    return mask(windows)


def entropy(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Return the sum of the cross-entropy in float32.

    Args:
        logits: (answers, vocabulary), of any dtype.
        labels: (answers,). Labels of -100 do not count.
    """
    import torch

    return torch.nn.functional.cross_entropy(logits.float(), labels, ignore_index=IGNORED_LABEL, reduction="sum")


def answer_loss(
    model: PeftModel | PreTrainedModel, inputs: ModelInputs, loss: Callable[..., torch.Tensor] = entropy
) -> torch.Tensor:
    """Return the sum of the cross-entropy over a row's answer tokens, (). Logits are computed only for those tokens.

    Args:
        model: a causal language model that supports `logits_to_keep`.
        inputs: the result of `model_inputs` for a row.
        loss: `entropy`, or its compiled form.
    """
    outputs = model(
        input_ids=inputs["input_ids"],
        position_ids=inputs["position_ids"],
        attention_mask=inputs["attention_mask"],
        logits_to_keep=inputs["predicted_from"],
        use_cache=False,
    )
    return loss(outputs.logits[0], inputs["labels"])
