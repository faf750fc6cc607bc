"""The output directory of a merge: its layout, what may stand in it already, and how it goes on after a crash."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.artifacts import MANIFEST, MergedModel, write_json
from sqlquarry.errors import ArtifactError, MergeError
from sqlquarry.merging.base import INDEX, BaseCheckpoint
from sqlquarry.merging.tensorfile import StoredTensor, TensorFile, encode_header, tensor_bytes

if TYPE_CHECKING:
    import torch

_STATE = ".merge.json"
# What a server reads beside the weights, and the licence texts that must travel with them.
_CARRIED = (
    "config.json",
    "generation_config.json",
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
    "*processor_config.json",
    "LICENSE*",
    "NOTICE*",
)


@dataclass(frozen=True, slots=True)
class OutputShard:
    """A file to be written: its leading bytes, then the tensors in this order."""

    name: str
    header: bytes
    tensors: tuple[StoredTensor, ...]

    @property
    def nbytes(self) -> int:
        """Size of the file."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)

    def write(self, directory: Path, contents: Iterable[torch.Tensor | None], advance: Callable[[int], object]) -> None:
        """Write the file whole or not at all.

        Args:
            directory: where it goes.
            contents: for each tensor its new value, or None to copy the stored bytes.
            advance: called with the bytes written, tensor by tensor.
        """
        temporary = directory / f".{self.name}.tmp"
        try:
            with temporary.open("wb") as file:
                file.write(self.header)
                for tensor, content in zip(self.tensors, contents, strict=True):
                    if content is None:
                        tensor.copy_to(file)
                    else:
                        file.write(tensor_bytes(content))
                    advance(tensor.nbytes)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(directory / self.name)
        finally:
            temporary.unlink(missing_ok=True)


def plan_shards(files: Sequence[TensorFile], max_shard_bytes: int) -> tuple[OutputShard, ...]:
    """The base's own shards, byte for byte in names and headers; split and renumbered where one is too large."""
    groups = [(file, group) for file in files for group in _groups(file.tensors, max_shard_bytes)]
    renumbered = len(groups) > len(files)
    return tuple(
        OutputShard(
            name=f"model-{number:05d}-of-{len(groups):05d}.safetensors" if renumbered else file.path.name,
            header=file.header if group == file.tensors else encode_header(group, file.metadata),
            tensors=group,
        )
        for number, (file, group) in enumerate(groups, 1)
    )


def _groups(tensors: Sequence[StoredTensor], max_bytes: int) -> Iterator[tuple[StoredTensor, ...]]:
    group: list[StoredTensor] = []
    size = 0
    for tensor in tensors:
        if group and size + tensor.nbytes > max_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(tensor)
        size += tensor.nbytes
    yield tuple(group)


class OutputDirectory:
    """A directory that one merge, named by its `inputs`, may fill over several runs.

    The state file says which inputs the finished shards came from, so that no shard of another merge is ever kept.
    """

    def __init__(self, path: Path, inputs: Mapping[str, Any]) -> None:
        self.path = path
        self.inputs = dict(inputs)
        self._done: dict[str, dict[str, float | None]] = {}

    def finished(self) -> MergedModel | None:
        """The finished merge of the same inputs, if it stands here; None where there is work to do.

        Raises:
            MergeError: something else stands here.
        """
        if not self.path.exists():
            return None
        if not self.path.is_dir():
            raise MergeError(f"{self.path} is a file. Choose a directory for the merged model.")
        if (self.path / MANIFEST).exists():
            return self._loaded()
        if (self.path / _STATE).exists():
            state = json.loads((self.path / _STATE).read_text())
            self._require_same(state["inputs"], "an unfinished merge")
            self._done = state["shards"]
        elif others := sorted(entry.name for entry in self.path.iterdir() if not entry.name.startswith(".")):
            names = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
            raise MergeError(f"{self.path} holds files that are no merge ({names}). Choose another directory.")
        return None

    def _loaded(self) -> MergedModel:
        try:
            merged = MergedModel.load(self.path)
        except ArtifactError as error:
            raise MergeError(
                f"{self.path} holds something finished that is no intact merged model. Choose another directory, or "
                "delete this one and merge again."
            ) from error
        self._require_same(merged.manifest.provenance.get("merge", {}), "a finished merge")
        return merged

    def _require_same(self, found: Mapping[str, Any], what: str) -> None:
        different = [
            f"{key} {found.get(key)!r} instead of {value!r}"
            for key, value in self.inputs.items()
            if found.get(key) != value
        ]
        if different:
            raise MergeError(
                f"{self.path} holds {what} of other inputs ({'; '.join(different)}). Choose another directory, or "
                "delete this one."
            )

    def remaining(self, shards: Sequence[OutputShard]) -> list[OutputShard]:
        """The shards that still have to be written; makes the directory.

        Raises:
            MergeError: the disk has no room for them.
        """
        left = [shard for shard in shards if not self._has(shard)]
        needed = sum(shard.nbytes for shard in left)
        existing = next(parent for parent in (self.path.absolute(), *self.path.absolute().parents) if parent.exists())
        if (free := shutil.disk_usage(existing).free) < needed:
            raise MergeError(
                f"the merged weights need {needed / 1e9:.2f} GB, but {self.path} has only {free / 1e9:.2f} GB free. "
                "Free some, or choose another disk."
            )
        self.path.mkdir(parents=True, exist_ok=True)
        self._save_state()
        return left

    def _has(self, shard: OutputShard) -> bool:
        file = self.path / shard.name
        return shard.name in self._done and file.is_file() and file.stat().st_size == shard.nbytes

    def shard_done(self, shard: OutputShard, relative_updates: Mapping[str, float | None]) -> None:
        """Note that a shard stands in its place, with ‖ΔW‖/‖W‖ of its merged tensors (None: replaced)."""
        self._done[shard.name] = dict(relative_updates)
        self._save_state()

    def _save_state(self) -> None:
        write_json(self.path / _STATE, {"inputs": self.inputs, "shards": self._done})

    @property
    def relative_updates(self) -> dict[str, float | None]:
        """‖ΔW‖/‖W‖ of every merged tensor so far, earlier runs included."""
        return {name: value for shard in self._done.values() for name, value in shard.items()}

    def carry_over(self, base: BaseCheckpoint, prompt: Path, shards: Sequence[OutputShard]) -> None:
        """Copy what else a server needs from the base, and the prompt; write or copy the index of the shards."""
        for pattern in (*_CARRIED, INDEX):
            for file in base.directory.glob(pattern):
                if file.is_file():
                    shutil.copyfile(file, self.path / file.name)
        shutil.copyfile(prompt, self.path / prompt.name)
        if [shard.name for shard in shards] != [file.path.name for file in base.shards]:
            weight_map = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
            total = sum(tensor.nbytes for shard in shards for tensor in shard.tensors)
            write_json(self.path / INDEX, {"metadata": {"total_size": total}, "weight_map": weight_map})

    def close(self) -> None:
        """Drop the state, once the manifest says that all is done."""
        (self.path / _STATE).unlink(missing_ok=True)
