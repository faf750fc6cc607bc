"""Headers of safetensors files: read in one or two reads, and every way of lying noticed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest
from bedrock_fakes import Tensors, safetensors
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.bedrock.weights import Weights, parse_index, parse_shard, read_header


def _file(header: dict[str, Any], body: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _parse(content: bytes) -> Any:
    return parse_shard("x.safetensors", len(content), lambda start, length: content[start : start + length])


def test_a_header_is_read_without_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"a": ("F32", [2, 3]), "b": ("BF16", [])}))
    tensors = read_header(path)
    assert {name: tensor[:2] for name, tensor in tensors.items()} == {"a": ("F32", (2, 3)), "b": ("BF16", ())}
    assert tensors["a"].end - tensors["a"].start == 24
    assert tensors["b"].end == path.stat().st_size


def _entry(start: int, end: int, dtype: str = "I8", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a safetensors file"),
        (b"short", "not a safetensors file"),
        (struct.pack("<Q", 10**9) + b"{}", "longer than the file"),
        (struct.pack("<Q", 2**63) + b"{}", "longer than the file"),
        (_file({"a": _entry(0, 4)}, 3), "the file is truncated"),
        (_file({"a": _entry(0, 4)}, 5), "longer than its header says"),
        (_file({"a": _entry(0, 4), "b": _entry(5, 6)}, 6), "damaged: b"),
        (_file({"a": _entry(0, 4), "b": _entry(3, 6)}, 6), "damaged: b"),
        (_file({"a": _entry(0, 4, shape=[5])}, 4), "damaged: a"),
        (_file({"a": _entry(0, 4, dtype="F32")}, 4), "damaged: a"),
        (_file({"a": {"dtype": "F32"}}, 4), "not a safetensors file"),
        (_file({"a": 1}, 4), "not a safetensors file"),
        (b"\x02\0\0\0\0\0\0\0[]", "not a safetensors file"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(content: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        _parse(content)
    assert "x.safetensors" in str(caught.value)


def test_a_long_header_takes_a_second_read() -> None:
    tensors: Tensors = {f"model.layers.{number}.mlp.experts.weight": ("BF16", [1]) for number in range(5000)}
    content, reads = safetensors(tensors), []

    def read(start: int, length: int) -> bytes:
        reads.append(length)
        return content[start : start + length]

    assert parse_shard("x", len(content), read).keys() == tensors.keys()
    assert len(reads) == 2
    assert sum(reads) < len(content)


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 5), max_size=3), max_size=8), st.integers(1, 40))
def test_any_file_is_read_whole_and_any_cut_is_noticed(shapes: dict[str, list[int]], cut: int) -> None:
    shapes.pop("__metadata__", None)
    content = safetensors({name: ("F32", shape) for name, shape in shapes.items()})
    assert {name: list(tensor.shape) for name, tensor in _parse(content).items()} == shapes
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        _parse(content[:-cut])


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"weight_map": 3}'])
def test_an_index_has_a_weight_map(content: bytes) -> None:
    with pytest.raises(ValueError, match="weight_map"):
        parse_index(content)


def test_a_server_reads_what_the_index_names() -> None:
    shards: Any = {"a": {"x": 1}, "b": {"y": 2}}
    assert Weights(shards, {}, {"x": "a"}).loaded == {"a": {"x": 1}}
    assert Weights(shards, {}, None).loaded == shards
    assert Weights(shards | {"model.safetensors": {}}, {}, None).loaded == {"model.safetensors": {}}
