"""Read the tensors of an adapter by the names that PEFT writes, and write them as safetensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.adoption.adapter_files import adopting
from sqlquarry.adoption.names import is_frozen_copy, normal_name
from sqlquarry.adoption.pickles import refuse_code
from sqlquarry.adoption.source import PICKLE
from sqlquarry.errors import AdoptionError
from sqlquarry.merging.tensor_file import FLOATS, TensorFile, encode_header, tensor_bytes
from sqlquarry.merging.update import all_finite

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class AdapterTensor:
    """A tensor of an adapter that is read when it is needed.

    Args:
        dtype: the dtype by safetensors' name.
        shape: the shape.
        load: reads the tensor.
    """

    dtype: str
    shape: tuple[int, ...]
    load: Callable[[], torch.Tensor]


@dataclass(frozen=True, slots=True)
class AdapterTensors:
    """The tensors of an adapter.

    Args:
        used: normal name -> tensor.
        frozen: normal name -> tensor, for copies of the base's tensors that PEFT keeps and does not use.
    """

    used: Mapping[str, AdapterTensor]
    frozen: Mapping[str, AdapterTensor]

    @classmethod
    def read(cls, path: Path) -> AdapterTensors:
        """Read and check all tensors of a weights file.

        Raises:
            AdoptionError: the file is damaged, contains code, has no tensors or empty ones, NaN or infinity, or two
                different tensors for one name.
        """
        stored = _pickled(path) if path.name == PICKLE else _safetensors(path)
        if not stored:
            raise AdoptionError(
                f"{path} contains no tensors. PEFT writes such a file for a model inside torch.compile, DDP or FSDP. "
                "Save the unwrapped model: accelerator.unwrap_model(model).save_pretrained(…)."
            )
        if empty := sorted(name for name, tensor in stored.items() if 0 in tensor.shape):
            raise AdoptionError(
                f"{len(empty)} of {len(stored)} tensors in {path} are empty, for example {empty[0]:.200}. They were "
                "saved before FSDP or DeepSpeed had gathered them. Gather the state dict first, and save again."
            )
        if other := sorted(name for name, tensor in stored.items() if tensor.dtype not in FLOATS):
            raise AdoptionError(
                f"{path} contains {other[0]:.200} of dtype {stored[other[0]].dtype}. An adapter has only "
                f"{', '.join(FLOATS)} tensors. Save it with model.save_pretrained, without the quantized base."
            )
        unique: dict[str, tuple[str, AdapterTensor]] = {}
        for name in sorted(stored):
            if not all_finite(stored[name].load()):
                raise AdoptionError(
                    f"{name:.200} in {path} contains NaN or infinity, so its training diverged. Train the adapter "
                    "again, for example with a lower learning rate."
                )
            first, _ = unique.setdefault(normal_name(name), (name, stored[name]))
            if first != name and not _equal(stored[first], stored[name]):
                raise AdoptionError(
                    f"{path} contains {first:.200} and {name:.200}, which are two names of one tensor, with different "
                    "values. Save the adapter again from one model with one adapter."
                )
        tensors = {name: tensor for name, (_, tensor) in sorted(unique.items())}
        frozen = {name: tensor for name, tensor in tensors.items() if is_frozen_copy(name)}
        return cls({name: tensor for name, tensor in tensors.items() if name not in frozen}, frozen)

    def write(self, path: Path) -> None:
        """Write the used tensors as safetensors, one after another."""
        fields = {
            name: (tensor.dtype, tensor.shape, math.prod(tensor.shape) * FLOATS[tensor.dtype][1])
            for name, tensor in self.used.items()
        }
        with path.open("wb") as file:
            file.write(encode_header(fields, {"format": "pt"}))
            for tensor in self.used.values():
                file.write(tensor_bytes(tensor.load().contiguous()))


def _safetensors(path: Path) -> dict[str, AdapterTensor]:
    with adopting(f"the adapter in {path.parent} is damaged"):
        file = TensorFile.open(path)
    return {tensor.name: AdapterTensor(tensor.dtype, tensor.shape, tensor.load) for tensor in file.tensors}


def _pickled(path: Path) -> dict[str, AdapterTensor]:
    import torch

    refuse_code(path)
    try:
        content = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    except Exception as error:  # a damaged file raises many kinds of errors
        raise AdoptionError(
            f"{path} cannot be loaded ({type(error).__name__}). Save the adapter again with the current PEFT, "
            "which writes safetensors."
        ) from error
    named = isinstance(content, dict) and all(isinstance(name, str) for name in content)
    if not named or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise AdoptionError(
            f"{path} does not map names to tensors. Save the adapter's state dict itself, with model.save_pretrained."
        )
    # A tensor of a few bytes can be expanded to any shape, and it would fill the memory when it is read.
    if expanded := sorted(name for name, one in content.items() if one.nbytes > one.untyped_storage().nbytes()):
        raise AdoptionError(
            f"{path} contains {expanded[0]:.200} of shape {list(content[expanded[0]].shape)}, which is larger than its "
            "data. Save the adapter again with the current PEFT, which writes safetensors."
        )
    names = {getattr(torch, torch_name): name for name, (torch_name, _) in FLOATS.items()}
    return {
        name: AdapterTensor(names.get(tensor.dtype, str(tensor.dtype)), tuple(tensor.shape), tensor.detach)
        for name, tensor in content.items()
    }


def _equal(one: AdapterTensor, other: AdapterTensor) -> bool:
    import torch

    return one.shape == other.shape and torch.equal(one.load().float(), other.load().float())
