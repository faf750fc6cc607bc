"""Test the update of one tensor: blocks of rows, exact bits, reported norms, and algebra that holds for any factors."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sqlquarry.merging.tensor_file import StoredTensor, TensorFile
from sqlquarry.merging.update import ExpertSlice, LowRank, TokenRows, Update, all_finite, row_blocks


def store(directory: Path | str, **tensors: torch.Tensor) -> dict[str, StoredTensor]:
    path = Path(directory) / "tensors.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path)
    return {tensor.name: tensor for tensor in TensorFile.open(path).tensors}


@given(rows=st.integers(1, 200_000), columns=st.integers(1, 40_000))
def test_row_blocks_cover_every_row_once_and_are_never_one_row_high(rows: int, columns: int) -> None:
    blocks = row_blocks(rows, columns)
    assert blocks[0].start == 0
    assert blocks[-1].stop == rows
    assert all(one.stop == other.start for one, other in itertools.pairwise(blocks))
    assert min(block.stop - block.start for block in blocks) >= min(rows, 64)


@pytest.mark.parametrize("shape", [(2049, 1024), (1000, 777), (3, 70_000)])
@pytest.mark.parametrize("rank", [1, 16, 64])
def test_blocks_give_the_same_bits_as_the_whole_product(tmp_path: Path, shape: tuple[int, int], rank: int) -> None:
    torch.manual_seed(0)
    a, b, weight = torch.randn(rank, shape[1]), torch.randn(shape[0], rank), torch.randn(shape).to(torch.bfloat16)
    stored = store(tmp_path, a=a, b=b)
    update = Update(factors=(LowRank(stored["a"], stored["b"], 0.5),))
    merged, change, size = update.apply_rows(weight.clone(), 0, torch.bfloat16)
    delta = (b @ a) * 0.5
    assert torch.equal(merged, (weight.float() + delta).bfloat16())
    assert (change, size) == pytest.approx((float(delta.norm()) ** 2, float(weight.float().norm()) ** 2), rel=1e-3)


@pytest.mark.parametrize("cuts", [[0, 320], [0, 64, 320], [0, 128, 192, 320]], ids=str)
@pytest.mark.parametrize("kind", ["lora", "dora", "two", "tokens", "embedding"])
def test_rows_in_any_cut_give_the_bits_of_the_whole_tensor(tmp_path: Path, cuts: list[int], kind: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(320, 96).bfloat16()
    stored = store(tmp_path, a=torch.randn(4, 96), b=torch.randn(320, 4), m=torch.rand(320), t=torch.randn(3, 96),
                   ea=torch.randn(4, 320), eb=torch.randn(96, 4))  # fmt: skip
    one = LowRank(stored["a"], stored["b"], 0.5)
    update = {
        "lora": Update(factors=(one,)),
        "dora": Update(factors=(one,), magnitude=stored["m"]),
        "two": Update(factors=(one, LowRank(stored["a"], stored["b"], 0.3, weight=-2.0))),
        "tokens": Update(tokens=TokenRows((319, 64, 5), stored["t"])),
        "embedding": Update(factors=(LowRank(stored["ea"], stored["eb"], 0.5, transposed=True),)),
    }[kind]
    whole, change, size = update.apply_rows(weight.clone(), 0, torch.bfloat16)
    pieces = [
        update.apply_rows(weight[start:stop].clone(), start, torch.bfloat16)
        for start, stop in itertools.pairwise([*cuts, 320] if cuts[-1] != 320 else cuts)
    ]
    assert torch.equal(torch.cat([merged for merged, _, _ in pieces]), whole)
    sums = [sum(squares) for squares in zip(*[piece[1:] for piece in pieces], strict=True)]
    assert sums == pytest.approx([change, size], rel=1e-5)
    assert not torch.equal(whole, weight)


@pytest.mark.parametrize(
    "kind", ["lora", "two", "dora", "dora embedding", "tokens", "lora and tokens", "dora and tokens", "embedding"]
)
def test_the_reported_norms_are_those_of_the_merged_tensor(tmp_path: Path, kind: str) -> None:
    torch.manual_seed(0)
    weight = torch.randn(320, 96)
    stored = store(tmp_path, a=torch.randn(4, 96), b=torch.randn(320, 4), m=torch.rand(320), t=torch.randn(3, 96),
                   ea=torch.randn(4, 320), eb=torch.randn(96, 4), em=torch.rand(96))  # fmt: skip
    one = LowRank(stored["a"], stored["b"], 0.5)
    embedding = LowRank(stored["ea"], stored["eb"], 0.5, transposed=True)
    tokens = TokenRows((319, 64, 5), stored["t"])
    update = {
        "lora": Update(factors=(one,)),
        "two": Update(factors=(one, LowRank(stored["a"], stored["b"], 0.3, weight=-2.0))),
        "dora": Update(factors=(one,), magnitude=stored["m"]),
        "dora embedding": Update(factors=(embedding,), magnitude=stored["em"]),
        "tokens": Update(tokens=tokens),
        "lora and tokens": Update(factors=(one,), tokens=tokens),
        "dora and tokens": Update(factors=(one,), magnitude=stored["m"], tokens=tokens),
        "embedding": Update(factors=(embedding,)),
    }[kind]
    assert update.row_wise == (kind != "dora embedding")
    merged, change, size = update.apply_rows(weight.clone(), 0, torch.float32)
    assert change == pytest.approx(float((merged - weight).double().square().sum()), rel=1e-5)
    assert size == pytest.approx(float(weight.double().square().sum()), rel=1e-5)
    assert change > 0.01 * size or kind == "tokens"
    if update.tokens is not None:
        assert torch.equal(merged[list(tokens.indices)], stored["t"].load())
        rows = [row for row in range(len(weight)) if row not in tokens.indices]
        assert torch.equal(merged[rows], weight[rows]) == (kind == "tokens")


@pytest.mark.parametrize("start", [0, 5])
def test_biases_are_added_and_replaced_tensors_are_written_without_reported_norms(tmp_path: Path, start: int) -> None:
    torch.manual_seed(0)
    stored = store(tmp_path, one=torch.randn(12), two=torch.randn(12), saved=torch.randn(12))
    factors = (LowRank(None, stored["one"], 0.5), LowRank(None, stored["two"], 3.0, weight=-2.0))
    bias = torch.randn(7)
    rows = slice(start, start + len(bias))
    merged, change, size = Update(factors=factors).apply_rows(bias.clone(), start, torch.float32)
    expected = bias + 0.5 * stored["one"].load()[rows] - 6.0 * stored["two"].load()[rows]
    torch.testing.assert_close(merged, expected)
    assert (change, size) == (0.0, 0.0)
    merged, change, size = Update(saved=stored["saved"]).apply_rows(bias, start, torch.bfloat16)
    assert torch.equal(merged, bias.bfloat16())
    assert (change, size) == (0.0, 0.0)


sizes = st.integers(1, 70)


@st.composite
def problems(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Draw a weight and a pair of factors of any shape."""
    rows, columns, rank = draw(sizes), draw(sizes), draw(st.integers(1, 8))
    random = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    return tuple(torch.randn(shape, generator=random) for shape in ((rows, columns), (rank, columns), (rows, rank)))  # type: ignore[return-value] - three shapes, three tensors


def merged(weight: torch.Tensor, *factors: tuple[torch.Tensor, torch.Tensor, float, float]) -> torch.Tensor:
    """Return W + Σ weight * scale * B A, computed in fp32 by this library."""
    with tempfile.TemporaryDirectory() as directory:
        names = {f"{which}{n}": t for n, factor in enumerate(factors) for which, t in zip("ab", factor, strict=False)}
        stored = store(directory, **names)
        parts = tuple(
            LowRank(stored[f"a{n}"], stored[f"b{n}"], scale, share) for n, (_, _, scale, share) in enumerate(factors)
        )
        return Update(factors=parts).apply_rows(weight.clone(), 0, torch.float32)[0]


def close(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, rtol=1e-5, atol=2e-5)


@settings(max_examples=25)
@given(problem=problems(), scale=st.floats(-4, 4))
def test_zero_b_is_the_base_and_the_update_is_linear_in_the_scale(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], scale: float
) -> None:
    weight, a, b = problem
    assert torch.equal(merged(weight, (a, torch.zeros_like(b), scale, 1.0)), weight)
    assert torch.equal(merged(weight, (a, b, 0.0, 1.0)), weight)
    close(merged(weight, (a, b, scale, 1.0)) - weight, scale * (merged(weight, (a, b, 1.0, 1.0)) - weight))
    close(merged(weight, (a, b, scale, 1.0)), merged(weight, (a, b, 1.0, scale)))


@settings(max_examples=25)
@given(problem=problems(), shares=st.tuples(st.floats(-2, 2), st.floats(-2, 2)), seed=st.integers(0, 1000))
def test_weighted_adapters_equal_their_exact_sum_in_any_order(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], shares: tuple[float, float], seed: int
) -> None:
    weight, a, b = problem
    random = torch.Generator().manual_seed(seed)
    other_a, other_b = torch.randn(3, a.shape[1], generator=random), torch.randn(b.shape[0], 3, generator=random)
    one, two = (a, b, 0.5, shares[0]), (other_a, other_b, 1.5, shares[1])
    exact = weight.double() + 0.5 * shares[0] * b.double() @ a.double()
    exact += 1.5 * shares[1] * other_b.double() @ other_a.double()
    close(merged(weight, one, two), exact.float())
    close(merged(weight, two, one), exact.float())


@settings(max_examples=25)
@given(problem=problems(), transposed=st.booleans())
def test_dora_rows_have_the_length_of_their_magnitude(
    problem: tuple[torch.Tensor, torch.Tensor, torch.Tensor], *, transposed: bool
) -> None:
    weight, a, b = problem
    plain = weight + 0.5 * b @ a
    assume(float(plain.norm(dim=1).min()) > 0.1)  # a row that cancels out has no direction
    magnitude = torch.rand(len(weight)) + 0.1
    with tempfile.TemporaryDirectory() as directory:
        stored = store(directory, a=a, b=b, m=magnitude)
        # An embedding is the transpose of a linear weight, so the update is transposed too.
        update = Update(factors=(LowRank(stored["a"], stored["b"], 0.5, transposed=transposed),), magnitude=stored["m"])
        assert update.row_wise is not transposed
        result, _, _ = update.apply_rows(weight.T.contiguous() if transposed else weight.clone(), 0, torch.float32)
    rows = result.T if transposed else result
    close(rows.norm(dim=1), magnitude)
    close(rows, magnitude[:, None] * plain / plain.norm(dim=1, keepdim=True))


def test_the_unmerged_factors_are_those_that_are_merged(tmp_path: Path) -> None:
    torch.manual_seed(0)
    stored = store(tmp_path, a=torch.randn(4, 9), b=torch.randn(7, 4).half(), m=torch.rand(7))
    low_rank = LowRank(stored["a"], stored["b"], 0.5, weight=3.0)
    factors, magnitude = Update(factors=(low_rank,), magnitude=stored["m"]).low_rank() or pytest.fail("no factors")
    ((a, b, scale),) = factors
    assert torch.equal(a, stored["a"].load())
    assert torch.equal(b, stored["b"].load().float())
    assert scale == 1.5
    assert magnitude is not None
    assert torch.equal(magnitude, stored["m"].load())
    assert Update(factors=(low_rank,), tokens=TokenRows((0,), stored["a"])).low_rank() is None
    assert Update(saved=stored["a"]).low_rank() is None
    assert Update(factors=(LowRank(stored["a"], stored["b"], 1.0, transposed=True),)).low_rank() is None
    assert Update(factors=(LowRank(None, stored["m"], 1.0),)).low_rank() is None


def test_an_expert_gets_its_part_of_the_factors(tmp_path: Path) -> None:
    torch.manual_seed(0)
    a, b = [torch.randn(2, 5) for _ in range(3)], [torch.randn(4, 2) for _ in range(3)]
    stored = store(tmp_path, a=torch.cat(a), b=torch.stack(b, dim=2).reshape(4, 6))
    for index in range(3):
        for rows in (None, (0, 2), (1, 4)):
            factor = LowRank(stored["a"], stored["b"], 1.0, expert=ExpertSlice(index, 3, rows))
            left, right = factor.load(torch.device("cpu"))
            assert torch.equal(left, b[index][slice(*rows) if rows else slice(None)])
            assert torch.equal(right, a[index])
            assert Update(factors=(factor,)).low_rank() is None
    with pytest.raises(TypeError, match=r"^b "):
        LowRank(None, stored["b"], 1.0).load(torch.device("cpu"))


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_one_value_that_is_not_finite_is_noticed(bad: float, dtype: torch.dtype) -> None:
    tensor = torch.randn(1000, 33).to(dtype)
    assert all_finite(tensor)
    tensor[777, 5] = bad
    assert not all_finite(tensor)
