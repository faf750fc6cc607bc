"""Compute each tensor of the merged model by rows: take the 4-bit values, add the adapter's update, round once."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.errors import MergeError
from sqlquarry.merging.four_bit import FourBitTensor, row_step
from sqlquarry.merging.tensor_file import FLOATS, StoredTensor, row_blocks, tensor_bytes
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
        read: the bytes of the base.
        written: the bytes of the output. They are the same memory as `read` if nothing changes.
        change: ‖ΔW‖² of these rows.
        size: ‖W‖² of these rows.
    """

    read: memoryview
    written: memoryview
    change: float = 0.0
    size: float = 0.0


@dataclass(frozen=True, slots=True)
class MergedTensor:
    """One tensor of the merged model, computed by rows. It can be used by several threads.

    Args:
        tensor: the tensor of the base.
        update: the change that the adapter makes, or None if it makes none.
        four_bit: the 4-bit values of the tensor, if the update is added to these.
        dtype: the dtype of the result, by safetensors' name.
        step: blocks of rows begin at multiples of this number.
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
        """Return the smallest blocks that contain these rows."""
        if self.update is not None and not self.update.row_wise:
            return self.blocks()
        count = self.tensor.shape[0]
        return [
            slice(n * self.step, min(count, (n + 1) * self.step)) for n in sorted({row // self.step for row in rows})
        ]

    def merge_rows(self, rows: slice) -> MergedRows:
        """Read, compute and round some rows.

        Raises:
            MergeError: the result contains NaN or infinity, or the file became shorter.
        """
        import torch

        if self.update is None and self.four_bit is None and self.dtype == self.tensor.dtype:
            content = torch.empty((rows.stop - rows.start) * self.tensor.row_bytes, dtype=torch.uint8).numpy().data
            self.tensor.read_into(rows.start * self.tensor.row_bytes, content)
            return MergedRows(content, content)
        stored, values = self._base(rows)
        if self.update is not None and values is stored:
            values = stored.clone()  # the update must not overwrite the stored bytes, which are hashed later
        merged, change, size = self._updated(values, rows)
        if not all_finite(merged):
            raise MergeError(
                f"merging {self.tensor.name} gives NaN or infinity in {self.dtype}. Check the base and the adapter"
                + (", or choose dtype='bfloat16'." if self.dtype == "F16" else ".")
            )
        return MergedRows(tensor_bytes(stored), tensor_bytes(merged), change, size)

    def values(self, rows: slice, *, updated: bool = True) -> torch.Tensor:
        """Return the rows in fp32: as written to the output, or before the update if `updated` is False."""
        _, values = self._base(rows)
        return (self._updated(values, rows)[0] if updated else values).float()

    def _base(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the base's rows as stored, and the values that the update is added to. Both may share memory."""
        saved = self.update.saved if self.update else None
        if saved is not None and saved != self.tensor:
            return self.tensor.load(rows), saved.load(rows)
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
    """The tensors of a merged model. They are computed when they are read.

    Args:
        tensors: the tensors of the base, and those that the output has instead of or in addition to them.
        updates: tensor name -> the change that the adapter makes.
        recipe: how the base was quantized, or None to use the weights as stored.
        dtype: the output's dtype by safetensors' name. None keeps the dtype of each tensor.
        dtypes: tensor name -> the dtype to keep if it is not the stored one.

    Raises:
        MergeError: a quantized module is not in the base.
    """

    def __init__(
        self,
        tensors: Mapping[str, StoredTensor],
        updates: Mapping[str, Update],
        recipe: QuantizationRecipe | None,
        dtype: str | None = None,
        dtypes: Mapping[str, str] | None = None,
    ) -> None:
        self._dtypes = dtypes or {}
        self.tensors = tensors
        self.updates = updates
        self._recipe = recipe
        self._dtype = dtype
        self._quantized = {f"{module}.weight" for module in recipe.modules} if recipe else set()
        if missing := sorted(self._quantized - tensors.keys()):
            raise MergeError(
                f"the base lacks weights that were 4-bit in the adapter's training, for example {missing[0]} "
                f"({len(missing)} in total). Merge into the base that the adapter was trained on."
            )

    @classmethod
    def planned(
        cls,
        base: Mapping[str, StoredTensor],
        plan: MergePlan,
        recipe: QuantizationRecipe | None,
        dtype: str | None = None,
    ) -> MergedTensors:
        """Return the model that results from applying `plan` to the base."""
        return cls({**base, **plan.extra}, plan.updates, recipe, dtype, plan.dtypes)

    def open(self, name: str) -> MergedTensor:
        """Return the tensor of this name, without reading it."""
        tensor = self.tensors[name]
        four_bit = FourBitTensor(tensor, self._recipe) if self._recipe and name in self._quantized else None
        step = row_step(self._recipe) if self._recipe else 64
        return MergedTensor(tensor, self.updates.get(name), four_bit, self.dtype(tensor), step)

    def dtype(self, tensor: StoredTensor) -> str:
        """Return the dtype of a tensor in the output, by safetensors' name."""
        return self._dtype if self._dtype and tensor.dtype in FLOATS else self._dtypes.get(tensor.name, tensor.dtype)

    def nbytes(self, tensor: StoredTensor) -> int:
        """Return the number of bytes of a tensor in the output."""
        if self.dtype(tensor) == tensor.dtype:
            return tensor.nbytes
        return tensor.nbytes // FLOATS[tensor.dtype][1] * FLOATS[self.dtype(tensor)][1]
