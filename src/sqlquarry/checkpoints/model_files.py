"""Find damage in a model's directory before anything is loaded. Of the weights, only the headers are read.

transformers reports most damage with an error that names no file. Some damage it does not report at all: it fills
missing weights with random numbers and ignores layers beyond the number in config.json.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from sqlquarry.checkpoints.foreign_model import MODEL_TYPES
from sqlquarry.checkpoints.safetensors_header import INDEX, ONE_SHARD, Tensor, parse_index, read_header
from sqlquarry.checkpoints.tensor_shapes import expected_tensors
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import parse_object, read_bytes, read_object

_FLOATS = ("F64", "F32", "F16", "BF16")
_OBJECTS = (  # JSON objects that transformers reads, except tokenizer.json, which is too large to read twice
    "config.json",
    "generation_config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
)
# Each of these files contains the tokens of some kind of tokenizer.
_VOCABULARIES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json")
READ_FILES = (*_OBJECTS, *_VOCABULARIES, "merges.txt", "chat_template.jinja", INDEX)
# https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md, "The Pointer".
_POINTER = b"version https://git-lfs.github.com/spec/"


def pointer_problem(name: str, begin: bytes) -> str:
    """Return the problem of a file that is empty or a Git LFS pointer, or "" if it is neither.

    Args:
        name: the file.
        begin: the first bytes of the file, 64 or more.
    """
    if begin.startswith(_POINTER):
        return f"{name} is a Git LFS pointer instead of the file (run `git lfs pull` there)"
    return "" if begin else f"{name} is empty"


def check_model_files(directory: Path) -> None:
    """Check the files of a model that transformers would read, and whether they match each other.

    Raises:
        UnsupportedModelError: a file is missing, damaged, or a Git LFS pointer, or the tensors are not those that
            config.json describes. The message names the files.
    """
    if problems := list(_problems(directory)):
        more = f" ({len(problems) - 3} more)" if len(problems) > 3 else ""
        raise UnsupportedModelError(
            f"the model in {directory} cannot be used: {'; '.join(problems[:3])}{more}. Download or save it again."
        )


def weight_files(directory: Path) -> list[Path]:
    """Return the safetensors files that transformers reads from a folder: a single file, or those listed in the index.

    Raises:
        UnsupportedModelError: the index cannot be read, or there is a single file that the index does not list.
    """
    single, index = directory / ONE_SHARD, directory / INDEX
    if not index.is_file():
        return [single]
    try:
        names = set(parse_index(read_bytes(index)).values())
    except (OSError, ValueError) as error:
        raise UnsupportedModelError(
            f"{index} is not an index of weights ({error}). Download the model again."
        ) from error
    if single.is_file() and names != {single.name}:
        raise UnsupportedModelError(
            f"the model in {directory} has {single.name}, but {index.name} lists other weights, so it is unclear which "
            "are meant. Move one of the two away."
        )
    return [directory / name for name in sorted(names)]


def _problems(directory: Path) -> Iterator[str]:
    """Yield the problems of a directory, without those that are only consequences of others."""
    found = [*_pointers(directory / name for name in (*READ_FILES, ONE_SHARD))]
    if not found:
        found = [*_objects(directory), *_tokenizer(directory)]
    if not found:
        shards = weight_files(directory)
        found = [f"{path.name} is missing" for path in shards if not path.is_file()] or [*_pointers(shards)]
        found = found or [*_weights(directory, shards)]
    yield from found


def _pointers(paths: Iterable[Path]) -> Iterator[str]:
    for path in paths:
        if not path.exists():
            continue
        try:
            with path.open("rb") as file:
                begin = file.read(64)
        except OSError as error:
            yield f"{path.name} cannot be read ({error.strerror})"
            continue
        if problem := pointer_problem(path.name, begin):
            yield problem


def _objects(directory: Path) -> Iterator[str]:
    for name in _OBJECTS:
        if name == "config.json" or (directory / name).is_file():
            try:
                content = read_object(directory / name)
            except (OSError, ValueError) as error:
                yield str(error) if name in str(error) else f"{name}: {error}"
                continue
            if name == "config.json" and content.get("model_type") is None and _architecture(content) in MODEL_TYPES:
                yield f"{name} has no model_type, which transformers needs to identify the model"
            eos = content.get("eos_token_id")
            if not all(token is None or type(token) is int for token in (eos if isinstance(eos, list) else [eos])):
                yield f"eos_token_id in {name} is {eos!r:.80}, but it must be a number or a list of numbers"


def _tokenizer(directory: Path) -> Iterator[str]:
    if not any((directory / name).is_file() for name in _VOCABULARIES):
        yield f"the tokenizer is missing: there is no {', '.join(_VOCABULARIES[:-1])} or {_VOCABULARIES[-1]}"
    path = directory / "tokenizer.json"
    if path.is_file():
        with path.open("rb") as file:
            begin = file.read(64).lstrip()[:1]
            file.seek(max(0, path.stat().st_size - 64))
            end = file.read().rstrip()[-1:]
        if (begin, end) != (b"{", b"}"):
            yield f"{path.name} is cut off or not JSON"


def _weights(directory: Path, shards: Iterable[Path]) -> Iterator[str]:
    config = read_object(directory / "config.json")
    tensors: dict[str, Tensor] = {}
    for path in shards:
        try:
            tensors |= read_header(path).tensors
        except (OSError, ValueError) as error:
            yield str(error)
            return
    if (directory / INDEX).is_file():
        content = read_bytes(directory / INDEX)
        if not isinstance(parse_object(content, INDEX).get("metadata"), dict):
            yield f"{INDEX} has no metadata, which transformers requires"
        listed = parse_index(content)
        yield from (f"{INDEX} lists {name:.200}, but no file has it" for name in listed if name not in tensors)
    try:
        expected = expected_tensors(_architecture(config), config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        yield f"config.json lacks a size or has an impossible one ({type(error).__name__}: {error})"
        return
    if expected is not None and "quantization_config" not in config:
        yield from _misfits(tensors, expected)


def _misfits(tensors: Mapping[str, Tensor], expected: Mapping[str, tuple[int, ...]]) -> Iterator[str]:
    for name, shape in expected.items():
        if name not in tensors:
            yield f"the weights lack {name}"
        elif tensors[name].shape != shape:
            yield f"{name} has the shape {list(tensors[name].shape)}, but config.json requires {list(shape)}"
        elif tensors[name].dtype not in _FLOATS:
            yield f"{name} is stored as {tensors[name].dtype}, but it must be one of {', '.join(_FLOATS)}"
    for name in tensors:
        # Unknown tables (such as inv_freq) and other extra tensors are never read, but weights of layers are.
        if name.startswith("model.layers.") and name.endswith((".weight", ".bias")) and name not in expected:
            yield f"the weights contain {name:.200}, which config.json does not describe"


def _architecture(config: Mapping[str, Any]) -> str | None:
    names = config.get("architectures")
    return names[0] if isinstance(names, list) and names and isinstance(names[0], str) else None
