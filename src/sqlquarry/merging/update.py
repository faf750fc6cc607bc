"""Apply an adapter to one tensor: the algebra of LoRA and of its variants that can be merged exactly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlquarry.merging.tensor_file import StoredTensor

if TYPE_CHECKING:
    import torch

_BLOCK_ELEMENTS = 1 << 18


@dataclass(frozen=True, slots=True)
class ExpertSlice:
    """One expert's part of the factors that PEFT stores for all experts of a layer together.

    Args:
        index: number of the expert.
        count: number of experts in the factors.
        rows: the (start, stop) rows of B that belong to the tensor, or None for all rows.
    """

    index: int
    count: int
    rows: tuple[int, int] | None = None

    def of_a(self, a: torch.Tensor) -> torch.Tensor:
        """Return the expert's part of A, (count * rank, in) -> (rank, in).

        The experts are stored one after the other (peft.tuners.lora.layer.ParamWrapper).
        """
        return a.reshape(self.count, -1, a.shape[1])[self.index]

    def of_b(self, b: torch.Tensor) -> torch.Tensor:
        """Return the expert's part of B, (out, rank * count) -> (out, rank).

        The experts are interleaved (peft.tuners.lora.layer.ParamWrapper).
        """
        rows = slice(*self.rows) if self.rows else slice(None)
        return b.reshape(len(b), -1, self.count)[rows, :, self.index]


@dataclass(frozen=True, slots=True)
class LowRank:
    """One adapter's pair of factors for one tensor.

    Args:
        a: (rank, in), or (rank, vocabulary) for an embedding, or None for a bias.
        b: (out, rank), or (out,) for a bias.
        scale: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        weight: the adapter's weight if several adapters are merged.
        transposed: whether the base tensor is (vocabulary, out), as for embeddings.
        expert: the part of the factors to use, if they contain several experts.
    """

    a: StoredTensor | None
    b: StoredTensor
    scale: float
    weight: float = 1.0
    transposed: bool = False
    expert: ExpertSlice | None = None

    def load(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `left` (rows, rank) and `right` (rank, columns) in fp32. The update is the scaled product."""
        if self.a is None:
            raise TypeError(f"{self.b.name} is a bias, which has no factors")
        a, b = (tensor.load().to(device).float() for tensor in (self.a, self.b))
        if self.expert:
            a, b = self.expert.of_a(a), self.expert.of_b(b)
        return (a.T, b.T) if self.transposed else (b, a)


@dataclass(frozen=True, slots=True)
class TokenRows:
    """Trained rows of an embedding, which replace those of the base (peft.tuners.trainable_tokens.layer)."""

    indices: tuple[int, ...]
    values: StoredTensor

    def write(self, block: torch.Tensor, start: int) -> None:
        """Write those trained rows that are in `block` into it. The block's first row is row `start` of the tensor."""
        here = [(n, index - start) for n, index in enumerate(self.indices) if 0 <= index - start < len(block)]
        if here:
            chosen, places = (list(numbers) for numbers in zip(*here, strict=True))
            block[places] = self.values.load()[chosen].to(block)


@dataclass(frozen=True, slots=True)
class Update:
    """All changes to one base tensor.

    Args:
        saved: the tensor that replaces the base tensor before all other changes (modules_to_save, trained biases).
        factors: the low-rank updates to add, one for each adapter.
        magnitude: DoRA's length of each row, (out,).
        tokens: trained rows that replace those of the tensor.
    """

    saved: StoredTensor | None = None
    factors: tuple[LowRank, ...] = ()
    magnitude: StoredTensor | None = None
    tokens: TokenRows | None = None

    @property
    def row_wise(self) -> bool:
        """Whether each row can be computed without the others. This is not possible for DoRA on an embedding."""
        return self.magnitude is None or not self.factors[0].transposed

    def low_rank(self) -> tuple[list[tuple[torch.Tensor, torch.Tensor, float]], torch.Tensor | None] | None:
        """Return the factors (A, B, scale) and DoRA's magnitude in fp32, or None if the update is of another kind.

        With these, the adapter can run unmerged: y = x Wᵀ + Σ s (x Aᵀ) Bᵀ.
        """
        import torch

        plain = all(factor.a is not None and not factor.transposed and not factor.expert for factor in self.factors)
        if not self.factors or not plain or self.tokens is not None:
            return None
        cpu = torch.device("cpu")
        loaded = []
        for factor in self.factors:
            b, a = factor.load(cpu)
            loaded.append((a, b, factor.weight * factor.scale))
        return loaded, None if self.magnitude is None else self.magnitude.load().float()

    def apply_rows(self, weight: torch.Tensor, start: int, dtype: torch.dtype) -> tuple[torch.Tensor, float, float]:
        """Return some merged rows, computed in fp32 and rounded once to `dtype`.

        LoRA computes W + Σ w s B A (Hu et al. 2021, arXiv:2106.09685, section 4.1), with s = alpha / r, or alpha /
        sqrt(r) for rsLoRA (Kalajdzievski 2023, arXiv:2312.03732). Several adapters are added up like PEFT's
        add_weighted_adapter with combination_type="cat". DoRA computes m (W + s B A) / ‖W + s B A‖ by rows (Liu et al.
        2024, arXiv:2402.09353, equation 5).

        Args:
            weight: consecutive rows of the base tensor, or of `saved` if that replaces it. They may be overwritten.
            start: the number of the first of these rows. If `row_wise` is True and each block starts at a multiple
                of 64 rows and has at least 64 rows, blocks give the same bits as the whole tensor. Otherwise pass all
                rows.
            dtype: the dtype of the result.

        Returns:
            the merged rows, and their ‖ΔW‖² and ‖W‖². Both are 0 for a bias and for a tensor that is only replaced.
        """
        import torch

        if not self.factors and self.tokens is None:
            return weight.to(dtype), 0.0, 0.0
        if self.factors and self.factors[0].a is None:
            return self._bias(weight, start).to(dtype), 0.0, 0.0
        product = _Product(self.factors, weight.device)
        length = None if self.magnitude is None else self.magnitude.load().to(weight.device).float()
        if length is not None and not self.row_wise:
            length = length / product.column_norms(weight)
        merged = weight if weight.dtype == dtype else torch.empty_like(weight, dtype=dtype)
        change = size = 0.0
        for rows in row_blocks(*weight.shape):
            before = weight[rows].float()
            delta = product(slice(start + rows.start, start + rows.stop), before)
            after = before + delta
            if length is not None:
                if self.row_wise:
                    of_rows = length[start + rows.start : start + rows.stop]
                    after.mul_((of_rows / torch.linalg.norm(after, dim=1))[:, None])
                else:
                    after.mul_(length)
            if self.tokens is not None:
                self.tokens.write(after, start + rows.start)
            if length is not None or self.tokens is not None:
                delta = after - before
            change += torch.linalg.vector_norm(delta).item() ** 2
            size += torch.linalg.vector_norm(before).item() ** 2
            merged[rows] = after
        return merged, change, size

    def _bias(self, weight: torch.Tensor, start: int) -> torch.Tensor:
        total = weight.float()
        for factor in self.factors:
            rows = factor.b.load()[start : start + len(weight)].to(weight.device).float()
            total = rows.mul_(factor.scale * factor.weight).add_(total)
        return total


class _Product:
    """The product Σ w s B A for any block of rows. The factors are read only once."""

    def __init__(self, factors: tuple[LowRank, ...], device: torch.device) -> None:
        import torch

        loaded = [factor.load(device) for factor in factors]
        self._factors: tuple[torch.Tensor, torch.Tensor, float] | None = None
        if len(factors) == 1 and factors[0].weight == 1.0:
            self._factors = (*loaded[0], factors[0].scale)
        elif factors:
            # The order of operations is that of PEFT's add_weighted_adapter, so that even the last bit agrees.
            right = [b * factor.weight * factor.scale for (_, b), factor in zip(loaded, factors, strict=True)]
            self._factors = (torch.cat([left for left, _ in loaded], dim=1), torch.cat(right), 1.0)

    def __call__(self, rows: slice, like: torch.Tensor) -> torch.Tensor:
        if self._factors is None:
            return like.new_zeros(like.shape)
        left, right, scale = self._factors
        return (left[rows] @ right).mul_(scale)

    def column_norms(self, weight: torch.Tensor) -> torch.Tensor:
        """Return ‖W + Σ w s B A‖ of every column."""
        import torch

        total = torch.zeros(weight.shape[1], device=weight.device)
        for rows in row_blocks(*weight.shape):
            before = weight[rows].float()
            total += (before + self(rows, before)).square().sum(dim=0)
        return total.sqrt()


def row_blocks(rows: int, columns: int) -> list[slice]:
    """Divide rows into blocks that fit into the processor's cache, so that no complete fp32 matrix is in memory.

    A block of a single row would be multiplied by a different routine and could differ in the last bit. Therefore the
    last block also takes the remaining rows.
    """
    height = max(64, _BLOCK_ELEMENTS // columns // 64 * 64)
    starts = range(0, max(1, rows - height + 1), height)
    return [slice(start, start + height if start != starts[-1] else rows) for start in starts]


def all_finite(tensor: torch.Tensor) -> bool:
    """Return whether a tensor contains neither NaN nor infinity.

    This is many times faster than torch.isfinite, which writes a mask.
    """
    return all(bool(extreme.isfinite()) for extreme in tensor.aminmax())
