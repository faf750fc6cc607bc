"""Find the base checkpoint that an adapter is merged into, and check it before the merge begins."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.checkpoints.foreign_model import CONFIG_SUFFIX, require_no_refusals
from sqlquarry.checkpoints.model_files import READ_FILES, pointer_problem
from sqlquarry.checkpoints.safetensors_header import INDEX, ONE_SHARD, parse_index
from sqlquarry.errors import MergeError, UnsupportedModelError
from sqlquarry.files.locations import is_hub_id, is_s3
from sqlquarry.files.metadata import JsonObject, parse_object
from sqlquarry.manifests import Manifest
from sqlquarry.merging.storage.local import LocalDirectory
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.merging.tensor_file import StoredTensor, TensorFile

_BLOCK_BYTES = 1 << 24
_POINTER_BYTES = 1024


def locate_base(base_model: str | Path | None, trained_on: Mapping[str, str]) -> str | Path:
    """Return the directory or ``s3://`` prefix of the base.

    Args:
        base_model: directory, ``s3://`` prefix or hub id. None means the base that the adapter was trained on.
        trained_on: `path` and `name` of the base as recorded by training. If the path does not exist, as on another
            machine, `name` is used: a hub id is looked up in the hub cache, and an ``s3://`` prefix is read from S3.

    Raises:
        MergeError: the hub id is not in the local cache.
    """
    if base_model is not None:
        return _in_hub_cache(str(base_model)) if is_hub_id(base_model) else base_model
    if not Path(trained_on["path"]).exists():
        if is_s3(trained_on["name"]):
            return trained_on["name"]
        if is_hub_id(trained_on["name"]):
            return _in_hub_cache(trained_on["name"])
    return trained_on["path"]


def _in_hub_cache(model_id: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(model_id, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError) as error:
        raise MergeError(
            f"{model_id} is neither a directory nor in the local hub cache, and merging does not download models. "
            f"Run `hf download {model_id}`, or pass the location of the base: AdapterMerger(base_model=...)."
        ) from error


@dataclass(frozen=True, slots=True)
class BaseCheckpoint:
    """A folder of safetensors shards with its config.json."""

    storage: Storage
    config: JsonObject
    shards: tuple[TensorFile, ...]

    @classmethod
    def open(cls, storage: Storage) -> BaseCheckpoint:
        """Read the config, the index and the headers of the shards, but no tensors.

        Raises:
            UnsupportedModelError: the weights are quantized or not safetensors, or the model requires custom code,
                which the merged model would require too.
            MergeError: the folder or a shard is missing or damaged.
        """
        present = storage.sizes()
        if not present and not (isinstance(storage, LocalDirectory) and storage.path.is_dir()):
            raise MergeError(
                f"there is no base model at {storage}: {storage.why_empty()} Pass the location of the base: "
                "AdapterMerger(base_model=...)."
            )
        # The tokenizer is copied into the merged model, so it must be intact. A Git LFS pointer is smaller than 1 kB.
        small = [name for name in READ_FILES if present.get(name, _POINTER_BYTES) < _POINTER_BYTES]
        if problems := [*filter(None, (pointer_problem(name, storage.read(name)) for name in small))]:
            raise UnsupportedModelError(f"the base at {storage} is damaged: {'; '.join(problems)}. Download it again.")
        config = _read(storage, "config.json", parse_object)
        if settings := config.get("quantization_config"):
            method = settings.get("quant_method") if isinstance(settings, dict) else settings
            raise UnsupportedModelError(
                f"the base at {storage} is already quantized ({method!r:.80}), "
                "so a merge would round the update away. Pass the full-precision checkpoint as base_model=."
            )
        others = sorted(name for name in present if name.endswith(CONFIG_SUFFIX) and name != "config.json")
        require_no_refusals(
            {"config.json": config, **{name: _read(storage, name, parse_object) for name in others}}, storage
        )
        weight_map: Mapping[str, str] = {}
        if INDEX in present:
            weight_map = _read(storage, INDEX, parse_index)
        elif ONE_SHARD not in present:
            raise UnsupportedModelError(
                f"{storage} contains neither {ONE_SHARD} nor {INDEX}. Save the base as safetensors."
            )
        names = sorted(set(weight_map.values())) or [ONE_SHARD]
        shards = tuple(TensorFile.open(storage.file(name)) for name in names)
        stored = {tensor.name for shard in shards for tensor in shard.tensors}
        if missing := sorted(weight_map.keys() - stored):
            raise MergeError(f"{storage}/{INDEX} lists {missing[0]}, but no shard has it. Download the base again.")
        return cls(storage, config, shards)

    def digest(self, known: Mapping[str, str]) -> str:
        """Return one SHA-256 (hex) over config.json and all weights, the same as `sqlquarry.manifests.base_digest`.

        Args:
            known: name -> SHA-256 of files that are already hashed. Only the other files are read.
        """
        names = [name for name in self.storage.sizes() if name == "config.json" or name.endswith(".safetensors")]
        files = {name: {"sha256": known.get(name) or self._sha256(name)} for name in names}
        return Manifest("base", files, {}).digest

    def _sha256(self, name: str) -> str:
        file, digest, offset = self.storage.file(name), hashlib.sha256(), 0
        block = memoryview(bytearray(min(_BLOCK_BYTES, file.size)))
        while count := file.read_into(offset, block):
            digest.update(block[:count])
            offset += count
        return digest.hexdigest()

    def mismatch(self, found: str, expected: str) -> MergeError | None:
        """Return the error to raise if the SHA-256 `found` is not `expected`, or None if they are equal."""
        if found == expected:
            return None
        return self.another(f"its SHA-256 is {found[:12]}…, but that of the training base is {expected[:12]}…")

    def another(self, why: str) -> MergeError:
        """Return the error for a base that is not the one that the adapter was trained on."""
        return MergeError(
            f"the base at {self.storage} is not the one that the adapter was trained on: {why}. Pass the base of the "
            "training: AdapterMerger(base_model=...)."
        )

    @property
    def tensors(self) -> dict[str, StoredTensor]:
        """All tensors by name."""
        return {tensor.name: tensor for shard in self.shards for tensor in shard.tensors}

    @property
    def tied(self) -> bool:
        """Whether the embedding is also the output head. transformers does not store a head in that case."""
        has_head = any(name.endswith("lm_head.weight") for name in self.tensors)
        return bool(self.config.get("tie_word_embeddings")) or not has_head


def _read(storage: Storage, name: str, parse: Callable[[bytes, str], JsonObject]) -> JsonObject:
    try:
        return parse(storage.read(name), name)
    except (OSError, ValueError, MergeError) as error:
        raise UnsupportedModelError(f"{storage}/{name} cannot be read ({error}). Download the base again.") from error
