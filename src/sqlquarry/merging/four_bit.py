"""Compute bitsandbytes' 4-bit values of a tensor a few rows at a time, bit for bit the same as for the whole tensor."""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlquarry.merging.tensor_file import StoredTensor
from sqlquarry.quantization import QuantizationRecipe

if TYPE_CHECKING:
    import torch

_KEPT_BYTES = 256 * 2**20
_SCAN_BYTES = 16 * 2**20
_CELLS = 4096
_OFFSET_TOLERANCE = 1e-5  # the seventh digit of an fp32 mean depends on the order of summation


def row_step(recipe: QuantizationRecipe) -> int:
    """Return the number of rows that every block of rows must be a multiple of, so that no 4-bit block is cut."""
    return max(64, recipe.block_size)


@dataclass(slots=True)
class FourBitTensor:
    """The weights that a 4-bit layer computes with, by rows (Dettmers et al. 2023, arXiv:2305.14314, section 3).

    Blocks are independent of one another except for double quantization, which subtracts the mean of all scales.
    Therefore the scales of the whole tensor are computed first. A tensor of up to 256 MiB stays in memory until its
    rows are computed. A larger one is read twice.
    """

    tensor: StoredTensor
    recipe: QuantizationRecipe
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _scales: torch.Tensor | None = None
    _kept: torch.Tensor | None = None

    def rows(self, rows: slice) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the stored values of `rows` and their 4-bit values in `load_dtype`, each (rows, columns).

        `rows` must begin at a multiple of `row_step`. The caller must not write to the stored values.
        """
        import bitsandbytes.functional as bnb
        import torch

        with self._lock:  # the first thread computes the scales, and the others use them
            if self._scales is None:
                self._scales = self._quantized_scales()
        stored = self._stored(rows)
        values = torch.empty(stored.shape, dtype=getattr(torch, self.recipe.load_dtype))
        columns, size = stored.shape[-1], self.recipe.block_size
        step = row_step(self.recipe)
        height = max(step, (1 << 18) // columns // step * step)
        code = _Code.of(self.recipe.quant_type)
        for start in range(0, len(stored), height):
            block = stored[start : start + height].to(values.dtype)
            first = (rows.start + start) * columns // size
            scales = self._scales[first : first + -(-block.numel() // size)]
            if code is not None and block.numel() % size == 0:
                values[start : start + height] = code.round_trip(block, scales, size)
                continue
            # The block is flattened because bitsandbytes misreads blocks that cross rows on some processors.
            packed, state = bnb.quantize_4bit(block.reshape(-1), blocksize=size, quant_type=self.recipe.quant_type)
            state.absmax = scales
            values[start : start + height] = bnb.dequantize_4bit(packed, state).reshape(block.shape)
        return stored, values

    def _stored(self, rows: slice) -> torch.Tensor:
        return self.tensor.load(rows) if self._kept is None else self._kept[rows]

    def _quantized_scales(self) -> torch.Tensor:
        """Return the scale of each block as used by dequantization, in fp32."""
        return self.recipe.stored_scales(self.block_scales(), self.tensor.name.removesuffix(".weight"))

    def block_scales(self) -> torch.Tensor:
        """Return the largest magnitude of each block of the whole tensor, in fp32."""
        import torch

        if self.tensor.nbytes <= _KEPT_BYTES:
            self._kept = self.tensor.load()
        count = self.tensor.shape[0]
        step = row_step(self.recipe)
        height = max(step, _SCAN_BYTES // self.tensor.row_bytes // step * step)
        dtype = getattr(torch, self.recipe.load_dtype)
        parts = [
            _largest(self._stored(slice(start, min(count, start + height))).to(dtype), self.recipe.block_size)
            for start in range(0, count, height)
        ]
        return torch.cat(parts)


def differing_offset(
    tensors: Mapping[str, StoredTensor], recipe: QuantizationRecipe
) -> tuple[str, float, float] | None:
    """Compare the mean block scales of a few modules with the recorded means.

    Up to three of the smallest modules are read, spread over the depth of the model. For an 8B model, that is 24 MB of
    16 GB. The check notices if one scale in 10,000 changes by a tenth of its value. It ignores rounding differences
    that come from another order of summation.

    Returns:
        the first module that differs, with its mean and the recorded mean, or None if all of them agree.
    """
    recorded = dict(zip(recipe.modules, recipe.offsets, strict=False))
    present = [tensors[name] for module in sorted(recorded) if (name := f"{module}.weight") in tensors]
    smallest = [tensor for tensor in present if tensor.nbytes == min(other.nbytes for other in present)]
    for place in sorted({0, len(smallest) // 2, len(smallest) - 1} if smallest else ()):
        module = smallest[place].name.removesuffix(".weight")
        found = FourBitTensor(smallest[place], recipe).block_scales().double().mean().item()
        if not math.isclose(found, recorded[module], rel_tol=_OFFSET_TOLERANCE):
            return module, found, recorded[module]
    return None


def _largest(values: torch.Tensor, block_size: int) -> torch.Tensor:
    """Return the largest magnitude of each block of `block_size` values in fp32. The last block may be shorter."""
    import torch

    flat = values.reshape(-1)
    whole = len(flat) // block_size * block_size
    blocks = flat[:whole].view(-1, block_size)
    largest = torch.maximum(blocks.amax(dim=1), -blocks.amin(dim=1)).float()
    return torch.cat([largest, flat[whole:].abs().amax()[None].float()]) if whole < len(flat) else largest


@dataclass(frozen=True, slots=True)
class _Code:
    """bitsandbytes' 4-bit rounding on the CPU, four times faster: a table of 4,096 cells replaces the search.

    A cell contains at most one border between two codes. A value gets the cell's first code, or the next code if the
    value is beyond the border.

    Args:
        values: the 16 values of the code in ascending order.
        first: each cell's first code.
        border: each cell's border, or infinity if the cell has no border.
    """

    values: torch.Tensor
    first: torch.Tensor
    border: torch.Tensor

    @staticmethod
    @functools.cache
    def of(quant_type: str) -> _Code | None:
        """Return the code for `quant_type`, or None if the installed bitsandbytes rounds differently near a border."""
        import bitsandbytes.functional as bnb
        import torch

        _, state = bnb.quantize_4bit(torch.ones(64), blocksize=64, quant_type=quant_type)
        values = state.code.float().sort().values
        borders = (values[1:] + values[:-1]) / 2
        # Rounding may move a value into the next cell, so each border also counts for the neighboring cells.
        cells = _cell(borders)[:, None] + torch.tensor([-1, 0, 1])
        border = torch.full((_CELLS,), torch.inf)
        border[cells.clamp(0, _CELLS - 1)] = borders[:, None].expand(-1, 3)
        beyond = torch.searchsorted(borders, torch.arange(_CELLS) * (2 / (_CELLS - 1)) - 1, right=True)
        first = torch.where(border.isinf(), beyond, torch.searchsorted(borders, border))
        code = _Code(values, first.to(torch.int32), border)
        return code if code._agrees(quant_type) else None

    def round_trip(self, block: torch.Tensor, scales: torch.Tensor, size: int) -> torch.Tensor:
        """Quantize and dequantize complete blocks of `size` values. `scales` are those of dequantization, in fp32."""
        blocks = block.reshape(-1, size).float()
        largest = blocks.abs().amax(dim=1, keepdim=True)
        relative = (blocks * (1.0 / largest.clamp(min=1e-38))).clamp_(-1, 1).view(-1)
        cells = _cell(relative)
        codes = self.first.index_select(0, cells).add_(relative > self.border.index_select(0, cells))
        return (self.values.index_select(0, codes).view(-1, size) * scales[:, None]).view(block.shape)

    def _agrees(self, quant_type: str) -> bool:
        import bitsandbytes.functional as bnb
        import torch

        borders = (self.values[1:] + self.values[:-1]) / 2
        near = torch.cat([torch.nextafter(borders, torch.tensor(sign)) for sign in (-2.0, 2.0)] + [borders])
        probes = torch.cat([near, torch.linspace(-1, 1, 20 * 1024 - len(near))])[:, None]
        block = torch.cat([probes, torch.ones(len(probes), 1)], dim=1).repeat(1, 32) * 0.7
        packed, state = bnb.quantize_4bit(block, blocksize=64, quant_type=quant_type)
        expected = bnb.dequantize_4bit(packed, state).reshape(block.shape)
        return torch.equal(self.round_trip(block, state.absmax, 64), expected)


def _cell(relative: torch.Tensor) -> torch.Tensor:
    """Return the number of the cell of each value in [-1, 1]. A larger value never gets a smaller number."""
    import torch

    return ((relative + 1) * ((_CELLS - 1) / 2)).to(torch.int32)
