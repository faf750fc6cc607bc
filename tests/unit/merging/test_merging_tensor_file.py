"""Test reading and writing of safetensors files by their headers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from sqlquarry.errors import MergeError
from sqlquarry.merging.tensor_file import TensorFile, encode_header


@pytest.fixture
def file(tmp_path: Path) -> Path:
    tensors = {
        "b": torch.arange(6, dtype=torch.bfloat16).reshape(2, 3),
        "a": torch.ones(5),
        "scalar": torch.tensor(7.0),
    }
    save_file(tensors, tmp_path / "m.safetensors", {"format": "pt"})
    return tmp_path / "m.safetensors"


def test_reads_what_safetensors_wrote(file: Path) -> None:
    opened = TensorFile.open(file)
    with safe_open(file, "pt") as reference:
        assert {t.name for t in opened.tensors} == set(reference.keys())
        for tensor in opened.tensors:
            assert torch.equal(tensor.load(), reference.get_tensor(tensor.name))
    assert opened.metadata == {"format": "pt"}
    assert file.read_bytes().startswith(opened.header)


def test_safetensors_reads_an_encoded_header(file: Path) -> None:
    opened = TensorFile.open(file)
    subset = opened.tensors[1:]
    copy = file.with_name("subset.safetensors")
    with copy.open("wb") as out:
        out.write(encode_header({t.name: (t.dtype, t.shape, t.nbytes) for t in subset}, opened.metadata))
        for tensor in subset:
            content = bytearray(tensor.nbytes)
            tensor.read_into(0, memoryview(content))
            out.write(content)
    with safe_open(copy, "pt") as written:
        assert set(written.keys()) == {t.name for t in subset}
        assert written.metadata() == {"format": "pt"}
        for tensor in subset:
            assert torch.equal(written.get_tensor(tensor.name), tensor.load())


@pytest.mark.parametrize("keep", [0, 4, 20, -1])
def test_a_file_that_was_cut_off_is_refused(file: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(MergeError, match=r"m\.safetensors"):
        TensorFile.open(file)


def test_bytes_after_the_end_are_refused(file: Path) -> None:
    file.write_bytes(file.read_bytes() + b"x")
    size = file.stat().st_size
    with pytest.raises(MergeError, match=rf"m\.safetensors.* {size:,} bytes.* {size - 1:,}\b"):
        TensorFile.open(file)


@pytest.mark.parametrize(
    "fields",
    [
        {"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [4, 12]}},
        {"a": {"dtype": "F32", "shape": [2]}},
        ["a"],
    ],
)
def test_headers_that_contradict_themselves_are_refused(tmp_path: Path, fields: object) -> None:
    header = json.dumps(fields).encode()
    (tmp_path / "bad.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(12))
    with pytest.raises(MergeError, match=r"bad\.safetensors"):
        TensorFile.open(tmp_path / "bad.safetensors")


def test_a_missing_file_and_an_unmergeable_dtype_are_named(tmp_path: Path) -> None:
    with pytest.raises(MergeError, match=r"/none\.safetensors"):
        TensorFile.open(tmp_path / "none.safetensors")
    save_file({"ids": torch.tensor([1, 2])}, tmp_path / "ids.safetensors")
    with pytest.raises(MergeError, match=r"ids .*ids\.safetensors.* I64"):
        TensorFile.open(tmp_path / "ids.safetensors").tensors[0].load()


def test_a_file_that_shrinks_while_it_is_read_is_noticed(file: Path) -> None:
    last = TensorFile.open(file).tensors[-1]
    file.write_bytes(file.read_bytes()[:-1])
    for read in (last.load, lambda: last.read_into(0, memoryview(bytearray(last.nbytes)))):
        with pytest.raises(MergeError, match=rf"/m\.safetensors .*\b{last.name} "):
            read()


def test_rows_are_read_alone(file: Path) -> None:
    matrix = next(tensor for tensor in TensorFile.open(file).tensors if tensor.name == "b")
    assert torch.equal(matrix.load(slice(1, 2)), torch.tensor([[3, 4, 5]], dtype=torch.bfloat16))
    assert torch.equal(matrix.load(slice(0, 2)), matrix.load())
