from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from sqlquarry.merging.adapter import Update, _row_blocks, all_finite
from sqlquarry.merging.tensorfile import TensorFile


@given(rows=st.integers(1, 200_000), columns=st.integers(1, 40_000))
def test_row_blocks_cover_every_row_once_and_are_never_one_row_high(rows: int, columns: int) -> None:
    blocks = _row_blocks(rows, columns)
    assert blocks[0].start == 0
    assert blocks[-1].stop == rows
    assert all(one.stop == other.start for one, other in itertools.pairwise(blocks))
    assert min(block.stop - block.start for block in blocks) >= min(rows, 64)


@pytest.mark.parametrize("shape", [(2049, 1024), (1000, 777), (3, 70_000)])
@pytest.mark.parametrize("rank", [1, 16, 64])
def test_blocks_give_the_same_bits_as_the_whole_product(tmp_path: Path, shape: tuple[int, int], rank: int) -> None:
    torch.manual_seed(0)
    a, b, weight = torch.randn(rank, shape[1]), torch.randn(shape[0], rank), torch.randn(shape).to(torch.bfloat16)
    save_file({"a": a, "b": b}, tmp_path / "ab.safetensors")
    stored = {tensor.name: tensor for tensor in TensorFile.open(tmp_path / "ab.safetensors").tensors}
    merged, relative = Update(a=stored["a"], b=stored["b"], scale=0.5).apply(weight.clone(), torch.bfloat16)
    delta = (b @ a) * 0.5
    assert torch.equal(merged, (weight.float() + delta).bfloat16())
    assert relative == pytest.approx(float(delta.norm() / weight.float().norm()), rel=1e-4)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_bad_value_among_many_is_seen(bad: float, dtype: torch.dtype) -> None:
    tensor = torch.randn(1000, 33).to(dtype)
    assert all_finite(tensor)
    tensor[777, 5] = bad
    assert not all_finite(tensor)
