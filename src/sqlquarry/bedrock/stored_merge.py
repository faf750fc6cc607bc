"""Rewrite the small files of a merged model on S3 in the service's dialect. Weights stay unchanged.

The manifest is never wrong: it is deleted before the first file changes and written again at the end. In between, the
object `STATE` contains the final manifest, so the next import can finish an interrupted rewrite and verify the result.
Two imports at the same time write the same bytes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.aws.transfer import Outgoing, Transfer
from sqlquarry.bedrock.export.chat_template import TEMPLATE_FILES
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.errors import CorruptArtifactError, MetadataError
from sqlquarry.files.metadata import check_size, file_name
from sqlquarry.manifests import MANIFEST, Manifest

STATE = ".export.json"
_READERS = 8


@dataclass(frozen=True, slots=True)
class StoredMerge:
    """A merged model below a prefix.

    Args:
        model: a copy of its small files, with the manifest of all files.
        found: name -> SHA-256 (hex) of each small file on S3.
        unfinished: whether a rewrite was interrupted.
    """

    model: MergedModel
    found: Mapping[str, str]
    unfinished: bool

    @classmethod
    def copy(
        cls, where: str, sizes: Mapping[str, int], read: Callable[[str], bytes], directory: Path
    ) -> StoredMerge | None:
        """Copy the small files into a directory, or return None if `AdapterMerger` did not write this prefix.

        Args:
            where: the prefix, for messages.
            sizes: file -> bytes.
            read: returns the content of a file.
            directory: an empty directory.

        Raises:
            CorruptArtifactError: a file is missing, or differs from the manifest.
            OSError: a file cannot be read.
        """
        manifest, state = (_merge_manifest(name, sizes, read) for name in (MANIFEST, STATE))
        described = manifest or state
        if described is None:
            return None
        weights = {name: entry for name, entry in described.files.items() if name.endswith(".safetensors")}
        if wrong := sorted(name for name, entry in weights.items() if sizes.get(name) != entry["bytes"]):
            raise _corrupt(where, wrong[0])
        small = [name for name in described.files if name not in weights and name in sizes]
        with ThreadPoolExecutor(_READERS) as pool:
            contents = dict(zip(small, pool.map(lambda name: _small(name, sizes, read), small), strict=True))
        for name, content in contents.items():
            (directory / file_name(name, MANIFEST)).write_bytes(content)
        found = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
        changed = sorted(
            name
            for name, entry in described.files.items()
            if name not in weights and found.get(name) != entry["sha256"]
        )
        if changed and state is None:
            raise _corrupt(where, changed[0])
        stored = cls(MergedModel(directory, described if not changed or state is None else state), found, bool(state))
        if changed:
            stored._require_resumable(where)
        return stored

    def _require_resumable(self, where: str) -> None:
        """Refuse the files unless finishing the interrupted rewrite would produce exactly the files in its manifest."""
        rewritten = export_files(self.model.path)
        digests = {**self.found, **{name: hashlib.sha256(content).hexdigest() for name, content in rewritten.items()}}
        for name, entry in self.model.manifest.files.items():
            if not name.endswith(".safetensors") and digests.get(name) != entry["sha256"]:
                raise _corrupt(where, name)

    def rewrite(
        self, exported: Mapping[str, bytes | Path], manifest: Manifest, prefix: S3Prefix, transfer: Transfer
    ) -> None:
        """Write the files that differ from an export of this model, and the manifest of the result.

        Args:
            exported: the files of the export. Contents are written if they differ. Files given as paths stay.
            manifest: the manifest of the export.
            prefix: the model's prefix.
            transfer: sends objects to the prefix.

        Raises:
            BedrockError: S3 refused a request. The next import resumes.
        """
        kept = self.model.manifest.files
        pending = {
            name: content
            for name, content in exported.items()
            if isinstance(content, bytes) and self.found.get(name) != manifest.files[name]["sha256"]
        }
        templates = [name for name in TEMPLATE_FILES if name in prefix.objects()]
        if not pending and not templates and not self.unfinished:
            return
        files = {name: entry for name, entry in kept.items() if name not in TEMPLATE_FILES}
        files |= dict(manifest.files)
        own = self.model.manifest.provenance
        provenance = own if "exported_from" in own else manifest.provenance
        text = Manifest(MergedModel.kind, dict(sorted(files.items())), provenance).content()
        transfer.send([Outgoing.of_bytes(STATE, text)])
        prefix.delete(MANIFEST)
        transfer.send([Outgoing.of_bytes(name, content) for name, content in pending.items()])
        for name in templates:
            prefix.delete(name)
        transfer.send([Outgoing.of_bytes(MANIFEST, text)])
        prefix.delete(STATE)


def _merge_manifest(name: str, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> Manifest | None:
    if name not in sizes:
        return None
    try:
        manifest = Manifest.parse(_small(name, sizes, read), name)
    except MetadataError:
        return None  # preflight reports the problem
    ours = manifest.kind == MergedModel.kind and isinstance(manifest.provenance.get("prompt_fingerprint"), str)
    return manifest if ours else None


def _small(name: str, sizes: Mapping[str, int], read: Callable[[str], bytes]) -> bytes:
    check_size(name, sizes[name])
    return read(name)


def _corrupt(where: str, name: str) -> CorruptArtifactError:
    return CorruptArtifactError(
        f"{where}{name} is missing or does not match {MANIFEST}. Merge again into a new prefix."
    )
