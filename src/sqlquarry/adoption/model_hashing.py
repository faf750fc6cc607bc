"""Hash the files of a model in one pass that also finds NaN and infinity in the weights."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import NamedTuple

from sqlquarry.adoption.model_files import ModelFiles
from sqlquarry.aws.parallel import parallel
from sqlquarry.bedrock.export.non_finite import NAN_OR_INFINITY, holds_non_finite
from sqlquarry.checkpoints.safetensors_header import Tensor
from sqlquarry.errors import AdoptionError
from sqlquarry.progress.bar import ProgressBar

_BLOCK_BYTES = 16 * 2**20  # a multiple of the size of every number
_FILES_AT_ONCE = 4


class _Part(NamedTuple):
    """A part of a file: a tensor, or bytes that do not belong to a tensor."""

    start: int
    end: int
    tensor: str = ""
    dtype: str = ""


def hash_files(
    files: ModelFiles, sizes: Mapping[str, int], tensors: Mapping[str, Mapping[str, Tensor]], *, name: str
) -> dict[str, str]:
    """Return the SHA-256 (hex) of each file. Every byte is read once.

    Args:
        files: the model's files.
        sizes: file -> bytes.
        tensors: safetensors file -> its tensors, which are checked for NaN and infinity.
        name: name of the progress bar.

    Raises:
        AdoptionError: a weight is NaN or infinite, or a file became shorter.
    """
    order = sorted(sizes, key=lambda file: -sizes[file])
    stopped = threading.Event()
    with ProgressBar(name, sum(sizes.values()), unit="byte", brief=True) as bar:

        def hashed(file: str) -> str:
            digest = hashlib.sha256()
            for block in _blocks(files, file, _parts(sizes[file], tensors.get(file, {}))):
                if stopped.is_set():
                    break
                digest.update(block)
                bar.advance(len(block))
            return digest.hexdigest()

        try:
            return {order[place]: digest for place, digest in parallel(hashed, order, _FILES_AT_ONCE)}
        finally:
            stopped.set()


def _parts(size: int, tensors: Mapping[str, Tensor]) -> Iterator[_Part]:
    """Divide a file into its header and its tensors, which are in file order."""
    end = 0
    for name, tensor in tensors.items():
        if tensor.start > end:
            yield _Part(end, tensor.start)
        yield _Part(tensor.start, tensor.end, name, tensor.dtype)
        end = tensor.end
    yield _Part(end, size)


def _blocks(files: ModelFiles, file: str, parts: Iterator[_Part]) -> Iterator[bytes]:
    for part in parts:
        for start in range(part.start, part.end, _BLOCK_BYTES):
            length = min(_BLOCK_BYTES, part.end - start)
            block = files.read(file, start, length)
            if len(block) != length:
                raise AdoptionError(
                    f"{files.location}/{file} became shorter while it was being read. Wait until the program that "
                    "writes it has ended, then call again."
                )
            if holds_non_finite(part.dtype, block):
                raise AdoptionError(
                    f"{files.location}/{file}: tensor {part.tensor} contains {NAN_OR_INFINITY}, so every answer would "
                    "be the same character. The training has probably diverged, or the merge overflowed in float16. "
                    "Train or merge again."
                )
            yield block


def same_content(files: ModelFiles, one: tuple[str, Tensor], other: tuple[str, Tensor]) -> bool:
    """Return whether two tensors, each given as (file, tensor), have the same dtype, shape and bytes."""
    (first, a), (second, b) = one, other
    if a[:2] != b[:2]:
        return False
    read: Callable[[str, int, int], bytes] = files.read
    lengths = ((at, min(_BLOCK_BYTES, a.end - a.start - at)) for at in range(0, a.end - a.start, _BLOCK_BYTES))
    return all(read(first, a.start + at, length) == read(second, b.start + at, length) for at, length in lengths)
