"""Test that 4-bit values computed by rows have the same bits as those of the whole tensor from bitsandbytes."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sqlquarry.merging import four_bit
from sqlquarry.merging.four_bit import FourBitTensor, row_step
from sqlquarry.merging.merged_tensors import row_blocks
from sqlquarry.merging.tensor_file import StoredTensor, TensorFile
from sqlquarry.quantization import QuantizationRecipe


def stored(weight: torch.Tensor, directory: Path) -> StoredTensor:
    save_file({"w": weight}, directory / "w.safetensors")
    return TensorFile.open(directory / "w.safetensors").tensors[0]


def by_rows(tensor: StoredTensor, recipe: QuantizationRecipe, height: int) -> torch.Tensor:
    four_bit = FourBitTensor(tensor, recipe)
    step = row_step(recipe)
    blocks = row_blocks(tensor, height * tensor.row_bytes, step)
    return torch.cat([four_bit.rows(rows)[1] for rows in blocks])


def weights(rows: int, columns: int, dtype: torch.dtype, seed: int = 0) -> torch.Tensor:
    """Return rows of very different magnitudes, with zeros and complete blocks of zeros."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(rows, columns, generator=random) * torch.logspace(-3, 1, rows)[:, None]
    values[:: max(1, rows // 3), : columns // 2] = 0
    return values.to(dtype)


@pytest.mark.parametrize("kept", [True, False], ids=["kept", "read twice"])
@pytest.mark.parametrize("double", [True, False], ids=["double", "single"])
@pytest.mark.parametrize("quant_type", ["nf4", "fp4"])
@pytest.mark.parametrize("load_dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("shape", [(700, 96), (130, 33)])
def test_rows_have_the_bits_of_the_whole_tensor(
    *,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, int],
    load_dtype: str,
    quant_type: Literal["nf4", "fp4"],
    double: bool,
    kept: bool,
) -> None:
    if not kept:
        monkeypatch.setattr(four_bit, "_KEPT_BYTES", 0)
        monkeypatch.setattr(four_bit, "_SCAN_BYTES", 5000)
    weight = weights(*shape, torch.bfloat16)
    recipe = QuantizationRecipe(
        quant_type=quant_type, double_quantization=double, load_dtype=load_dtype, storage_dtype="uint8"
    )
    expected = recipe.round_trip(weight)
    found = by_rows(stored(weight, tmp_path), recipe, height=128)
    assert found.dtype == expected.dtype
    assert torch.equal(found, expected)
    assert not torch.equal(found.float(), weight.float())


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.integers(1, 600), columns=st.integers(1, 300), height=st.integers(1, 600), seed=st.integers(0, 99),
    block_size=st.sampled_from([64, 128, 256]), double=st.booleans(), fp4=st.booleans(),
)  # fmt: skip
def test_any_shape_and_any_block_size(
    *, tmp_path: Path, rows: int, columns: int, height: int, seed: int, block_size: int, double: bool, fp4: bool
) -> None:
    weight = weights(rows, columns, torch.float32, seed)
    recipe = QuantizationRecipe(
        quant_type="fp4" if fp4 else "nf4", double_quantization=double, load_dtype="float32", block_size=block_size,
        storage_dtype="uint8",
    )  # fmt: skip
    assert torch.equal(by_rows(stored(weight, tmp_path), recipe, height), recipe.round_trip(weight))
