"""Compute each tensor of the merged model by rows: 4-bit values, the adapter's update, one rounding."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.errors import MergeError
from sqlquarry.merging.four_bit import FourBitTensor, row_step
from sqlquarry.merging.tensor_file import FLOATS, StoredTensor, tensor_bytes
from sqlquarry.merging.update import Update, all_finite
from sqlquarry.quantization import QuantizationRecipe

if TYPE_CHECKING:
    import torch

    from sqlquarry.merging.plan import MergePlan

_BLOCK_BYTES = 8 * 2**20


@dataclass(frozen=True, slots=True)
class MergedRows:
    """Some rows of a tensor, as read from the base and as written to the output.

    Args:
        read: the base's bytes.
        written: the output's bytes; the same memory if nothing changes.
        change: ‖ΔW‖² of these rows.
        size: ‖W‖² of these rows.
    """

    read: memoryview
    written: memoryview
    change: float = 0.0
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """One tensor of the merged model, computed by rows; safe to use from several threads.

    Args:
        tensor: the base's.
        update: what the adapter changes; None if nothing.
        four_bit: its 4-bit values, if the update is added to these.
        dtype: safetensors' name of the dtype that it is rounded to.
        step: rows that a block begins at a multiple of.
    """

    tensor: StoredTensor
    update: Update | None
    four_bit: FourBitTensor | None
    dtype: str
    step: int

    def blocks(self) -> list[slice]:
        """Divide all rows, from first to last, into blocks of about 8 MiB."""
        row_wise = self.update is None or self.update.row_wise
        return row_blocks(self.tensor, _BLOCK_BYTES if row_wise else self.tensor.nbytes, self.step)

    def blocks_of(self, rows: Iterable[int]) -> list[slice]:
        """Return the smallest blocks that hold these rows."""
        if self.update is not None and not self.update.row_wise:
            return self.blocks()
        count = self.tensor.shape[0]
        return [
            slice(n * self.step, min(count, (n + 1) * self.step)) for n in sorted({row // self.step for row in rows})
        ]

    def merge_rows(self, rows: slice) -> MergedRows:
        """Read, compute and round some rows.

        Raises:
            MergeError: the result holds NaN or infinity, or the file became shorter.
        """
        import torch

        if self.update is None and self.four_bit is None and self.dtype == self.tensor.dtype:
            content = torch.empty((rows.stop - rows.start) * self.tensor.row_bytes, dtype=torch.uint8).numpy().data
            self.tensor.read_into(rows.start * self.tensor.row_bytes, content)
            return MergedRows(content, content)
        stored, values = self._base(rows)
        if self.update is not None and values is stored:
            values = stored.clone()  # the bytes that were read are hashed later, so the update must not go into them
        merged, change, size = self._updated(values, rows)
        if not all_finite(merged):
            raise MergeError(
                f"merging {self.tensor.name} gives NaN or infinity in {self.dtype}: check base and adapter"
                + (", or choose dtype='bfloat16'" if self.dtype == "F16" else "")
            )
        return MergedRows(tensor_bytes(stored), tensor_bytes(merged), change, size)

    def values(self, rows: slice, *, updated: bool = True) -> torch.Tensor:
        """Return the rows as they are written, in fp32; without `updated`, what the update would be added to."""
        _, values = self._base(rows)
        return (self._updated(values, rows)[0] if updated else values).float()

    def _base(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the base's rows as stored, and what the update is added to, which may be the same memory."""
        if self.update is not None and self.update.saved is not None:
            return self.tensor.load(rows), self.update.saved.load(rows)
        if self.four_bit is not None:
            return self.four_bit.rows(rows)
        stored = self.tensor.load(rows)
        return stored, stored

    def _updated(self, values: torch.Tensor, rows: slice) -> tuple[torch.Tensor, float, float]:
        import torch

        dtype = getattr(torch, FLOATS[self.dtype][0])
        if self.update is None:
            return values.to(dtype), 0.0, 0.0
        merged, change, size = self.update.apply_rows(values, rows.start, dtype)
        return merged.contiguous(), change, size


class MergedTensors:
    """The tensors of a merged model, which is computed as it is read.

    Args:
        tensors: the base's tensors and those that only the output has.
        updates: what the adapter changes.
        recipe: how the base was quantized, if its 4-bit values are wanted; else None.
        dtype: safetensors' name of the output's dtype; None keeps each tensor's own.

    Raises:
        MergeError: a quantized module is not in the base.
    """

    def __init__(
        self,
        tensors: Mapping[str, StoredTensor],
        updates: Mapping[str, Update],
        recipe: QuantizationRecipe | None,
        dtype: str | None = None,
    ) -> None:
        self.tensors = tensors
        self.updates = updates
        self._recipe = recipe
        self._dtype = dtype
        self._quantized = {f"{module}.weight" for module in recipe.modules} if recipe else set()
        if missing := sorted(self._quantized - tensors.keys()):
            raise MergeError(
                f"the adapter was trained on 4-bit {missing[0]} ({len(missing)} such in all), which the base does not "
                "hold. Merge into the base that the adapter was trained on."
            )

    @classmethod
    def planned(
        cls,
        base: Mapping[str, StoredTensor],
        plan: MergePlan,
        recipe: QuantizationRecipe | None,
        dtype: str | None = None,
    ) -> MergedTensors:
        """Return the model that `plan` makes of the base."""
        return cls({**base, **plan.extra}, plan.updates, recipe, dtype)

    def open(self, name: str) -> MergedTensor:
        """Return the tensor of this name, without reading it."""
        tensor = self.tensors[name]
        four_bit = FourBitTensor(tensor, self._recipe) if self._recipe and name in self._quantized else None
        step = row_step(self._recipe) if self._recipe else 64
        return MergedTensor(tensor, self.updates.get(name), four_bit, self.dtype(tensor), step)

    def dtype(self, tensor: StoredTensor) -> str:
        """Safetensors' name of the dtype in which a tensor is written."""
        return self._dtype if self._dtype and tensor.dtype in FLOATS else tensor.dtype

    def nbytes(self, tensor: StoredTensor) -> int:
        """Bytes that a tensor takes in the output."""
        if self.dtype(tensor) == tensor.dtype:
            return tensor.nbytes
        return tensor.nbytes // FLOATS[tensor.dtype][1] * FLOATS[self.dtype(tensor)][1]


def row_blocks(tensor: StoredTensor, nbytes: int, step: int) -> list[slice]:
    """Divide a tensor's rows into blocks of about `nbytes` that begin at multiples of `step`.

    A block of a few rows would be multiplied by another routine and differ in the last bit, so the last block takes
    what is left over.
    """
    rows = tensor.shape[0] if tensor.shape else 1
    if len(tensor.shape) < 2:
        return [slice(0, rows)]
    if len(tensor.shape) > 2:  # experts, one after another
        step = 1
    height = max(step, nbytes // max(1, tensor.row_bytes) // step * step)
    starts = range(0, max(1, rows - height + 1), height)
    return [slice(start, start + height if start != starts[-1] else rows) for start in starts]
