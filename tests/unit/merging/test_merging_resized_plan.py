"""Test by properties that merges with resized tables give the shapes, dtypes and values of a plain computation."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load

from merging_fakes import write_adapter, write_base
from sqlquarry import AdapterMerger
from sqlquarry.errors import MergeError

EMBEDDING, HEAD, PREFIX = "model.embed_tokens.weight", "lm_head.weight", "base_model.model."
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@settings(max_examples=25)
@given(
    tied=st.booleans(),
    stored_head=st.booleans(),
    rows=st.tuples(st.integers(1, 200), st.integers(1, 200)),
    same=st.booleans(),
    equal=st.booleans(),
    base_dtype=st.sampled_from(DTYPES),
    dtype=st.sampled_from(DTYPES),
    max_shard_bytes=st.integers(1, 60_000),
    split=st.integers(0, 3),
    seed=st.integers(0, 9),
)
def test_the_output_has_the_saved_tables(
    *,
    tied: bool,
    stored_head: bool,
    rows: tuple[int, int],
    same: bool,
    equal: bool,
    base_dtype: torch.dtype,
    dtype: torch.dtype,
    max_shard_bytes: int,
    split: int,
    seed: int,
) -> None:
    random = torch.Generator().manual_seed(seed)
    base = {
        name: torch.randn(shape, generator=random).to(base_dtype)
        for name, shape in (
            (EMBEDDING, (50, 8)),
            ("model.norm.weight", (8,)),
            (HEAD, (50, 8)),
            ("model.layers.0.x.weight", (40, 40)),
        )
    }
    if tied and not stored_head:
        del base[HEAD]
    embedding = torch.randn(rows[0], 8, generator=random).to(dtype)
    head = embedding.clone() if equal else torch.randn(rows[0] if same else rows[1], 8, generator=random).to(dtype)
    names = list(base)
    groups = [{name: base[name] for name in part} for part in (names[:split], names[split:]) if part]
    with tempfile.TemporaryDirectory() as folder:
        place = write_base(Path(folder) / "base", *groups, config={"tie_word_embeddings": tied, "vocab_size": 50})
        (place / "tokenizer.json").unlink()
        adapter = write_adapter(
            Path(folder) / "adapter", place, {f"{PREFIX}{EMBEDDING}": embedding, f"{PREFIX}{HEAD}": head}
        )
        merger = AdapterMerger(max_shard_bytes=max_shard_bytes)
        if len(embedding) != len(head):
            with pytest.raises(MergeError, match=rf"\b{len(embedding)} .*\b{len(head)} "):
                merger.merge(adapter, Path(folder) / "out")
            return
        merged = merger.merge(adapter, Path(folder) / "out")
        shards = [file.read_bytes() for file in merged.path.glob("*.safetensors")]
        config = json.loads((merged.path / "config.json").read_text())
    found = {name: tensor for shard in shards for name, tensor in load(shard).items()}
    assert sum(len(load(shard)) for shard in shards) == len(found)
    both_equal = torch.equal(embedding, head)
    assert config["vocab_size"] == len(embedding)
    assert config["tie_word_embeddings"] == (tied and both_equal)
    assert found.keys() == base.keys() | ({HEAD} if not (tied and both_equal) else set())
    expected = {**base, EMBEDDING: embedding.to(base_dtype), HEAD: head.to(base_dtype)}
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())
    assert all(tensor.dtype == expected[name].dtype for name, tensor in found.items())
    assert all(len(shard) <= max_shard_bytes + 4096 or len(load(shard)) == 1 for shard in shards)
    assert merged.merge.relative_updates.keys() == found.keys() & {EMBEDDING, HEAD}
