"""Pickled weights are scanned before they are loaded. Nothing in them is executed."""

from __future__ import annotations

import os
import pickle
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from sqlquarry.adoption.pickles import refuse_code
from sqlquarry.adoption.tensors import AdapterTensors
from sqlquarry.errors import AdoptionError

NAME = "base_model.model.model.layers.0.mlp.up_proj.lora_A.weight"


class Hostile:
    """Run a command when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.system, ("touch executed",)


def archive(path: Path, content: bytes, *, name: str = "archive/data.pkl", **options: Any) -> Path:
    with zipfile.ZipFile(path, "w", **options) as file:
        file.writestr(name, content)
        file.writestr("archive/version", b"3\n")
    return path


@pytest.mark.parametrize(
    "content",
    [
        {NAME: torch.randn(2, 3)},
        OrderedDict({NAME: torch.nn.Parameter(torch.randn(2, 3))}),
        {NAME: torch.randn(6).to(torch.bfloat16).reshape(2, 3).T},
        {NAME: torch.randn(4, 3).half()[1:3]},
        {NAME: torch.randn(2, 3, dtype=torch.float64)},
    ],
    ids=["tensor", "parameter", "bfloat16 transposed", "float16 view", "float64"],
)
def test_tensors_are_loaded(tmp_path: Path, content: dict[str, torch.Tensor]) -> None:
    path = tmp_path / "adapter_model.bin"
    torch.save(content, path)
    refuse_code(path)
    tensors = AdapterTensors.read(path)
    assert torch.equal(tensors.used[NAME].load(), content[NAME])
    tensors.write(tmp_path / "adapter_model.safetensors")
    again = AdapterTensors.read(tmp_path / "adapter_model.safetensors")
    assert torch.equal(again.used[NAME].load(), content[NAME])
    assert again.used[NAME].dtype == tensors.used[NAME].dtype


@pytest.mark.parametrize("protocol", range(5))
def test_code_is_refused_by_name_and_not_executed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    path = archive(tmp_path / "adapter_model.bin", pickle.dumps({NAME: Hostile()}, protocol=protocol))
    with pytest.raises(AdoptionError, match="system"):
        AdapterTensors.read(path)
    assert not Path("executed").exists()


def test_an_old_instruction_for_code_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "adapter_model.bin", b"(S'touch executed'\nios\nsystem\n.")
    with pytest.raises(AdoptionError, match="os system"):
        refuse_code(path)


@pytest.mark.parametrize("value", [torch.ones(2, 2).to_sparse(), torch.float32, torch.nn.Linear(2, 2)], ids=str)
def test_other_objects_than_plain_tensors_are_refused(tmp_path: Path, value: Any) -> None:
    torch.save({NAME: value}, tmp_path / "adapter_model.bin")
    with pytest.raises(AdoptionError, match="torch"):
        AdapterTensors.read(tmp_path / "adapter_model.bin")


def test_files_of_other_formats_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "adapter_model.bin"
    torch.save({NAME: torch.ones(2)}, path, _use_new_zipfile_serialization=False)
    with pytest.raises(AdoptionError, match="zip"):
        refuse_code(path)
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))
    with pytest.raises(AdoptionError, match="TorchScript"):
        refuse_code(path)
    archive(path, pickle.dumps({}, protocol=2), compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(AdoptionError, match="compressed"):
        refuse_code(path)
    archive(path, pickle.dumps({}, protocol=2), name="archive/other.pkl")
    with pytest.raises(AdoptionError, match=r"other\.pkl"):
        refuse_code(path)
    archive(path, pickle.dumps({}, protocol=2)[:-1])
    with pytest.raises(AdoptionError, match=r"adapter_model\.bin"):
        refuse_code(path)


# The places of two fields in an entry of a zip archive's directory (PKWARE's APPNOTE.TXT, 4.3.12).
@pytest.mark.parametrize(("field", "value"), [(6, 99), (8, 1)], ids=["a newer version", "encrypted"])
def test_an_archive_that_cannot_be_read_is_refused(tmp_path: Path, field: int, value: int) -> None:
    path = archive(tmp_path / "adapter_model.bin", pickle.dumps({}, protocol=2))
    content = bytearray(path.read_bytes())
    content[content.index(b"PK\x01\x02") + field] = value
    path.write_bytes(content)
    with pytest.raises(AdoptionError, match=r"adapter_model\.bin"):
        refuse_code(path)


def test_a_tensor_that_is_larger_than_its_data_is_refused(tmp_path: Path) -> None:
    torch.save({NAME: torch.zeros(1).expand(10**6, 10**6)}, tmp_path / "adapter_model.bin")
    with pytest.raises(AdoptionError, match=r"lora_A\.weight of shape \[1000000, 1000000\]"):
        AdapterTensors.read(tmp_path / "adapter_model.bin")


def test_the_message_does_not_advise_to_execute_the_pickle(tmp_path: Path) -> None:
    path = archive(tmp_path / "adapter_model.bin", b"\x80\x02ctorch._utils\n_rebuild_parameter\n}b.")
    with pytest.raises(AdoptionError, match="UnpicklingError") as caught:
        AdapterTensors.read(path)
    assert "weights_only" not in str(caught.value)


def test_a_second_pickle_in_the_archive_is_refused(tmp_path: Path) -> None:
    path = archive(tmp_path / "adapter_model.bin", pickle.dumps({}, protocol=2))
    with zipfile.ZipFile(path, "a") as file:
        file.writestr("other/data.pkl", pickle.dumps(Hostile(), protocol=2))
    with pytest.raises(AdoptionError, match="one archive"):
        refuse_code(path)


@pytest.mark.parametrize("content", [{"state_dict": {NAME: torch.ones(2)}}, [torch.ones(2)], {1: torch.ones(2)}])
def test_only_a_state_dict_is_accepted(tmp_path: Path, content: Any) -> None:
    torch.save(content, tmp_path / "adapter_model.bin")
    with pytest.raises(AdoptionError, match="names"):
        AdapterTensors.read(tmp_path / "adapter_model.bin")
