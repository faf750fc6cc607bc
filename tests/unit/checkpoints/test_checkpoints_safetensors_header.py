"""Test that headers of safetensors files take one or two reads, and that every wrong header is noticed."""

from __future__ import annotations

import json
import math
import struct
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError, deserialize

from sqlquarry.checkpoints.safetensors_header import Header, parse_header, parse_index, read_header
from sqlquarry.errors import MetadataError

BITS = {"F32": 32, "BF16": 16, "I8": 8}


def safetensors(tensors: dict[str, tuple[str, list[int]]]) -> bytes:
    """Return a complete file whose tensors are zeros."""
    header: dict[str, Any] = {}
    end = 0
    for name, (dtype, shape) in tensors.items():
        start, end = end, end + math.prod(shape) * BITS[dtype] // 8
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}
    return _file(header, end)


def _file(header: dict[str, Any], body: int) -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(body)


def _raw(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header + bytes(4)


def _parse(content: bytes) -> Header:
    return parse_header("x.safetensors", len(content), lambda start, length: content[start : start + length])


def test_a_header_is_read_without_the_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(safetensors({"a": ("F32", [2, 3]), "b": ("BF16", [])}))
    tensors = read_header(path).tensors
    assert {name: tensor[:2] for name, tensor in tensors.items()} == {"a": ("F32", (2, 3)), "b": ("BF16", ())}
    assert tensors["a"].end - tensors["a"].start == 24
    assert tensors["b"].end == path.stat().st_size


def _entry(start: int, end: int, dtype: str = "I8", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


ONE = {"a": _entry(0, 4)}
SIZE = len(_file(ONE, 4))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"\b0 bytes"),
        (b"short", r"\b5 bytes"),
        (struct.pack("<Q", 10**9) + b"{}", r"\b1,000,000,000 bytes"),
        (struct.pack("<Q", 2**63) + b"{}", rf"\b{2**63:,} bytes"),
        (_file(ONE, 3), rf"\b{SIZE - 1} bytes.* {SIZE}$"),
        (_file(ONE, 5), rf"\b{SIZE + 1} bytes.* {SIZE}$"),
        (_file({"a": _entry(0, 4), "b": _entry(5, 6)}, 6), r"\bb \(I8 \[1\]\)"),
        (_file({"a": _entry(0, 4), "b": _entry(3, 6)}, 6), r"\bb \(I8 \[3\]\)"),
        (_file({"a": _entry(0, 4, shape=[5])}, 4), r"\ba of I8 \[5\]"),
        (_file({"a": _entry(0, 4, dtype="F32")}, 4), r"\ba of F32 \[4\]"),
        (_file({"a": {"dtype": "F32"}}, 4), "KeyError: 'shape'"),
        (_file({"a": 1}, 4), "TypeError: "),
        (b"\x02\0\0\0\0\0\0\0[]", "TypeError: "),
        (_raw(b"[" * 100_000), r"\b100 levels"),
        (_raw(b'{"a": {"dtype": "I8", "shape": [Infinity], "data_offsets": [0, 4]}}'), r"\bInfinity\b"),
        (_raw(b'{"a": {"dtype": "I8", "shape": [1e400], "data_offsets": [0, 4]}}'), r"\b1e400\b"),
        (_raw(b'{"a": {"dtype": "I8", "shape": [' + b"9" * 5000 + b'], "data_offsets": [0, 4]}}'), r"\b5000 digits"),
        (_file({"a": _entry(0, 4, shape=[-2, -2])}, 4), r"\ba .* -2\b"),
        (_file({"a": _entry(0, 4, shape=[4.0])}, 4), r"\ba .* 4\.0\b"),
        (_file({"a": _entry(0, 1, shape=[True])}, 1), r"\ba .* True\b"),
        (_file({"a": _entry(0, 1, shape=[1] * 65)}, 1), r"\ba .* 65\b"),
        (_file({"a": _entry(-4, 0, shape=[4])}, 4), r"\ba of I8 \[4\] .* -4\b"),
        (_file({"a": _entry(0, 4, dtype="F8_E9M9")}, 4), r"\bF8_E9M9\b"),
        (_file({"a": _entry(0, 4) | {"dtype": ["I8"]}}, 4), "TypeError: "),
        (_file({"a": _entry(0, 4) | {"shape": {"0": 4}}}, 4), r"\ba .* '0'"),
        (_file({"__metadata__": {"format": 1}}, 0), r"\b__metadata__\b"),
    ],
)
def test_a_damaged_file_is_an_error_that_names_it(content: bytes, message: str) -> None:
    with pytest.raises(MetadataError, match=message) as caught:
        _parse(content)
    assert "x.safetensors" in str(caught.value)


def test_a_long_header_takes_a_second_read() -> None:
    tensors: dict[str, tuple[str, list[int]]] = {
        f"model.layers.{number}.mlp.experts.weight": ("BF16", [1]) for number in range(5000)
    }
    content, reads = safetensors(tensors), []

    def read(start: int, length: int) -> bytes:
        reads.append(length)
        return content[start : start + length]

    assert parse_header("x", len(content), read).tensors.keys() == tensors.keys()
    assert len(reads) == 2
    assert sum(reads) < len(content)


@given(st.dictionaries(st.text(min_size=1), st.lists(st.integers(0, 5), max_size=3), max_size=8), st.integers(1, 40))
def test_any_complete_file_is_read_and_any_truncated_one_is_noticed(shapes: dict[str, list[int]], cut: int) -> None:
    shapes.pop("__metadata__", None)
    content = safetensors({name: ("F32", shape) for name, shape in shapes.items()})
    assert {name: list(tensor.shape) for name, tensor in _parse(content).tensors.items()} == shapes
    with pytest.raises(MetadataError, match=r"x\.safetensors"):
        _parse(content[:-cut])


@pytest.mark.parametrize("content", [b"{}", b"[]", b"{", b'{"weight_map": 3}'])
def test_an_index_has_a_weight_map(content: bytes) -> None:
    with pytest.raises(MetadataError, match=r"index\.json"):
        parse_index(content)


@pytest.mark.parametrize(
    "shard", ["../x", "/etc/hostname", "a/b", "", "..", 3, None, ["x"], "C:x", "a\\b", "a\0b", "\ud800"]
)
def test_an_index_may_only_list_files_of_its_folder(shard: object) -> None:
    with pytest.raises(MetadataError, match=r"^model\.safetensors\.index\.json "):
        parse_index(json.dumps({"weight_map": {"a": "x", "b": shard}}).encode())
    assert parse_index(json.dumps({"weight_map": {"a": "x"}}).encode()) == {"a": "x"}


_ANY = st.recursive(st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=3), st.lists)


@given(
    st.dictionaries(
        st.sampled_from("abc"),
        st.fixed_dictionaries(
            {
                "dtype": st.sampled_from(["I8", "F32", "BF16", "U9"]) | _ANY,
                "shape": st.lists(st.integers(0, 3), max_size=3) | _ANY,
                "data_offsets": st.lists(st.integers(0, 12), min_size=2, max_size=2) | _ANY,
            }
        ),
        max_size=2,
    ),
    st.integers(0, 24),
)
def test_a_header_is_accepted_only_if_safetensors_accepts_it(header: dict[str, Any], body: int) -> None:
    content = _file(header, body)
    try:
        reference: dict[str, Any] | None = dict(deserialize(content))
    except SafetensorError:
        reference = None
    try:
        tensors = _parse(content).tensors
    except MetadataError:
        assert reference is None
    else:
        assert reference is not None
        assert tensors.keys() == reference.keys()
