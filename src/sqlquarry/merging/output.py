"""Plan and write the output of a merge, and record its state so that a later run can resume."""

from __future__ import annotations

import dataclasses
import fnmatch
import hashlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.artifacts import MergedModel
from sqlquarry.checkpoints.safetensors_header import INDEX, ONE_SHARD
from sqlquarry.credentials import public_provenance
from sqlquarry.errors import MergeError, MetadataError
from sqlquarry.files.locations import located
from sqlquarry.files.metadata import JsonObject, json_bytes, parse_object, relative_name
from sqlquarry.manifests import MANIFEST, MERGE_STATE, Manifest
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.merging.merged_tensors import MergedTensors
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.merging.tensor_file import FLOATS, StoredTensor, TensorFile, encode_header


@dataclass(frozen=True, slots=True)
class OutputShard:
    """A safetensors file to write.

    Args:
        name: name of the file.
        header: the leading bytes of the file.
        tensors: the tensors that follow the header, in this order.
        nbytes: size of the file.
        source: the base's file with the same tensors. None if this shard is a part of a file of the base, is new, or
            contains a resized tensor.
    """

    name: str
    header: bytes
    tensors: tuple[StoredTensor, ...]
    nbytes: int
    source: TensorFile | None


@dataclass(frozen=True, slots=True)
class WrittenShard:
    """The record of a shard that is written.

    Args:
        sha256: SHA-256 of the file.
        source_sha256: SHA-256 of the base's file with the same tensors, if there is one.
        relative_updates: ‖ΔW‖/‖W‖ of the merged tensors. None for a tensor that was replaced.
    """

    sha256: str
    source_sha256: str | None
    relative_updates: Mapping[str, float | None]


def plan_shards(files: Sequence[TensorFile], rows: MergedTensors, max_shard_bytes: int) -> tuple[OutputShard, ...]:
    """Plan the output's shards: those of the base with their names and headers, or new ones if a shard is too large.

    Tensors that the base lacks are in shards of their own at the end. If shards are split or added, all of them are
    renumbered.
    """
    contents = [(file, [rows.tensors[tensor.name] for tensor in file.tensors]) for file in files]
    groups: list[tuple[TensorFile | None, tuple[StoredTensor, ...]]] = [
        (file, group) for file, tensors in contents for group in _groups(tensors, rows, max_shard_bytes)
    ]
    stored = {tensor.name for file in files for tensor in file.tensors}
    added = [tensor for name, tensor in rows.tensors.items() if name not in stored]
    groups += [(None, group) for group in _groups(added, rows, max_shard_bytes)] if added else []
    renumbered = len(groups) > len(files)
    shards = []
    for number, (file, group) in enumerate(groups, 1):
        whole = file if file and file.tensors == group else None
        if whole and all(rows.dtype(tensor) == tensor.dtype for tensor in group):
            header = whole.header
        else:
            fields = {tensor.name: (rows.dtype(tensor), tensor.shape, rows.nbytes(tensor)) for tensor in group}
            header = encode_header(fields, file.metadata if file else {"format": "pt"})
        name = f"model-{number:05d}-of-{len(groups):05d}.safetensors"
        shards.append(
            OutputShard(
                name=name if renumbered or file is None else file.file.name,
                header=header,
                tensors=group,
                nbytes=len(header) + sum(rows.nbytes(tensor) for tensor in group),
                source=whole,
            )
        )
    return tuple(shards)


def _groups(tensors: Sequence[StoredTensor], rows: MergedTensors, max_bytes: int) -> Iterator[tuple[StoredTensor, ...]]:
    group: list[StoredTensor] = []
    size = 0
    for tensor in tensors:
        nbytes = rows.nbytes(tensor)
        if group and size + nbytes > max_bytes:
            yield tuple(group)
            group, size = [], 0
        group.append(tensor)
        size += nbytes
    yield tuple(group)


class MergeOutput:
    """A directory or S3 prefix that one merge, identified by its `inputs`, fills in one or more runs.

    The state file records the inputs of the finished shards, so that shards of another merge are never reused.
    """

    def __init__(self, storage: Storage, location: str | Path) -> None:
        self.storage = storage
        self.location = located(location)
        self.inputs: JsonObject = {}
        self.done: dict[str, WrittenShard] = {}
        self._files: dict[str, dict[str, str | int]] = {}
        self._writer = uuid.uuid4().hex  # distinguishes this process's state file from that of another process
        self._version = storage.version(MERGE_STATE)  # taken before the file is read, so that later writes are noticed
        sizes = storage.sizes()
        self._finished: MergedModel | None = None
        self._sizes = sizes
        if MANIFEST in sizes:
            self._finished = self._loaded()
            merge = self._finished.manifest.provenance.get("merge", {})
            self._found = merge if isinstance(merge, dict) else {"merge": merge}
        elif MERGE_STATE in sizes:
            self._found, self.done = self._state()
        else:
            self._found = {}
            if others := sorted(name for name in sizes if not name.startswith(".")):
                names = ", ".join(others[:5]) + (" …" if len(others) > 5 else "")
                raise MergeError(
                    f"{location} contains files that are not from a merge ({names}). Choose an empty output directory."
                )

    def _state(self) -> tuple[JsonObject, dict[str, WrittenShard]]:
        """Read the inputs of an unfinished merge and the shards that are finished so far.

        Raises:
            MergeError: the state file is invalid.
        """
        try:
            state = parse_object(self.storage.read(MERGE_STATE), MERGE_STATE, lenient=True)
            done = {
                relative_name(name, MERGE_STATE): WrittenShard(**written) for name, written in state["shards"].items()
            }
            if not all(isinstance(written.relative_updates, dict) for written in done.values()):
                raise TypeError("a shard has no relative_updates")  # noqa: TRY301 - one message for every bad state
            return dict(state["inputs"]), done
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise MergeError(
                f"{self.location} contains an unfinished merge whose {MERGE_STATE} cannot be read ({error}). Delete "
                f"{self.location} and merge again."
            ) from error

    def found(self, key: str) -> object:
        """Return a field of the inputs of the merge that is already here, or None if there is no such field."""
        return self._found.get(key)

    def finished(self, inputs: JsonObject) -> MergedModel | None:
        """Return the finished merge of the same inputs, or None if the merge is still to be done.

        Raises:
            MergeError: the output contains a merge of other inputs.
        """
        self.inputs = json.loads(json.dumps(inputs))
        different = [
            f"{key} is {self.found(key)!r}, not {value!r}"
            for key, value in self.inputs.items()
            if self.found(key) != value
        ]
        if self._found and different:
            what = "a finished merge" if self._finished else "an unfinished merge"
            raise MergeError(
                f"{self.location} contains {what} of other inputs ({'; '.join(different)}). Choose another output, or "
                "delete this one."
            )
        return self._finished

    def _loaded(self) -> MergedModel:
        try:
            manifest = Manifest.parse(self.storage.read(MANIFEST), MANIFEST)
        except (OSError, MetadataError):
            manifest = Manifest("nothing", {}, {})
        intact = all(self._sizes.get(name) == entry["bytes"] for name, entry in manifest.files.items())
        if manifest.kind != MergedModel.kind or not intact:
            raise MergeError(
                f"{self.location} has a {MANIFEST}, but it is not an intact merged model. Choose another output, or "
                "delete this one and merge again."
            )
        return MergedModel(self.location, manifest)

    def remaining(self, shards: Sequence[OutputShard]) -> list[OutputShard]:
        """Return the shards that still have to be written, and remove the temporary files of killed processes.

        Raises:
            MergeError: there is not enough room for the shards.
        """
        left = [shard for shard in shards if shard.name not in self.done or self._sizes.get(shard.name) != shard.nbytes]
        for name in self._sizes:
            if fnmatch.fnmatch(name, ".*.tmp"):  # left by a process that was killed while writing
                self.storage.delete(name)
        self.storage.require_room(sum(shard.nbytes for shard in left))
        self._save_state()
        return left

    def shard_done(self, shard: OutputShard, written: WrittenShard) -> None:
        """Record that a shard is completely written."""
        self.done[shard.name] = written
        self._save_state()

    def _save_state(self) -> None:
        shards = {name: dataclasses.asdict(written) for name, written in self.done.items()}
        content = {"inputs": self.inputs, "shards": shards, "writer": self._writer}
        self._version = self.storage.replace(MERGE_STATE, json_bytes(content), self._version)

    def discard(self) -> None:
        """Remove every finished shard and the state."""
        for name in (*self.done, MERGE_STATE):
            self.storage.delete(name)

    @property
    def relative_updates(self) -> dict[str, float | None]:
        """‖ΔW‖/‖W‖ of every merged tensor so far, including those of earlier runs."""
        if self._finished is not None:
            return dict(self._found.get("relative_updates") or {})
        return {name: value for written in self.done.values() for name, value in written.relative_updates.items()}

    def carry_over(
        self,
        files: CarriedFiles,
        prompt: Path,
        shards: Sequence[OutputShard],
        rows: MergedTensors,
        changes: Mapping[str, JsonObject],
        *,
        tokenizer: Mapping[str, bytes],
    ) -> None:
        """Write all other files: the prompt, the files that a server needs, and the index of the shards.

        Args:
            files: the files that a server needs.
            prompt: the adapter's ``prompt.json``.
            shards: the output's shards.
            rows: the contents of the shards.
            changes: JSON file -> its fields that differ from those of the base.
            tokenizer: contents of the tokenizer's files that differ from those in `files`, by name.
        """
        for name in sorted({*files.names(), *tokenizer}):
            content = tokenizer[name] if name in tokenizer else files.read(name)
            if changes.get(name):
                content = json_bytes({**parse_object(content, name), **changes[name]})
            self._write(name, content)
        self._write(prompt.name, prompt.read_bytes())
        if all(shard.source and shard.header == shard.source.header for shard in shards):
            if INDEX in files.base.sizes():
                self._write(INDEX, files.base.read(INDEX))
        elif [shard.name for shard in shards] != [ONE_SHARD]:
            weight_map = {tensor.name: shard.name for shard in shards for tensor in shard.tensors}
            total = sum(rows.nbytes(tensor) for shard in shards for tensor in shard.tensors)
            self._write(INDEX, json_bytes({"metadata": {"total_size": total}, "weight_map": weight_map}))

    def _write(self, name: str, content: bytes) -> None:
        self.storage.write(name, content)
        self._files[name] = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

    def finish(self, shards: Sequence[OutputShard], provenance: JsonObject) -> MergedModel:
        """Write the manifest, which marks the merge as finished, and delete the state."""
        files = self._files | {
            shard.name: {"sha256": self.done[shard.name].sha256, "bytes": shard.nbytes} for shard in shards
        }
        manifest = Manifest(MergedModel.kind, dict(sorted(files.items())), public_provenance(provenance))
        self.storage.write(MANIFEST, manifest.content())
        self.storage.delete(MERGE_STATE)
        return MergedModel(self.location, manifest)


def dtype_changes(config: JsonObject, dtype: str | None) -> JsonObject:
    """Return the fields of config.json to change for another dtype: `dtype` in transformers 5, before `torch_dtype`.

    Args:
        config: the config.json of the base.
        dtype: the output's dtype by safetensors' name. None changes nothing.
    """
    if dtype is None:
        return {}
    name = FLOATS[dtype][0]
    fields = [key for key in ("torch_dtype", "dtype") if key in config] or ["torch_dtype"]
    return {key: name for key in fields if config.get(key) != name}
