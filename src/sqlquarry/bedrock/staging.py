"""Prepare the S3 prefix that an import job reads: upload a local model, or rewrite files that are already on S3."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.aws.transfer import Transfer
from sqlquarry.bedrock.export.model_export import ModelExport, require_same_prompt
from sqlquarry.bedrock.preflight.source import S3Source
from sqlquarry.bedrock.stored_merge import StoredMerge
from sqlquarry.bedrock.upload import upload
from sqlquarry.errors import BedrockError, CorruptArtifactError
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import read_object
from sqlquarry.manifests import MANIFEST, Manifest
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

ModelSource = MergedModel | Path | str


@dataclass(frozen=True, slots=True)
class LocalModelStaging:
    """A model on this machine that is to be uploaded.

    Args:
        source: the caller's model.
        export: the files to upload.
    """

    source: ModelSource
    export: ModelExport

    @classmethod
    def of(cls, source: ModelSource, formatter: PromptFormatter | None) -> LocalModelStaging:
        """Hash the model's files. `formatter` is the prompt to serve if the model does not have its own."""
        return cls(source, ModelExport.of(_opened(source), formatter))

    def upload(self, s3_uri: str, s3: S3Client, *, sleep: Callable[[float], None], show_progress: bool) -> None:
        """Upload the missing files.

        Raises:
            CorruptArtifactError: the model was written again after it was loaded, or differs from its manifest.
            BedrockError: as in `upload`.
        """
        if isinstance(self.source, MergedModel):  # the upload itself notices changes without a new manifest
            _require_same(MergedModel.load(self.source.path).manifest, self.source)
        upload(self.export, s3_uri, s3=s3, show_progress=show_progress, sleep=sleep)


@dataclass(frozen=True, slots=True)
class StoredModelStaging:
    """A model on S3 that is imported from its own prefix.

    Args:
        location: the prefix.
        export: the files as they are to be imported.
        merged: the merged model to rewrite, or None if the files stay unchanged.
    """

    location: S3Location
    export: ModelExport
    merged: StoredMerge | None = None

    @classmethod
    def of(cls, files: S3Source, source: ModelSource, formatter: PromptFormatter | None) -> StoredModelStaging:
        """Read the small files of a prefix.

        Args:
            files: the prefix.
            source: the caller's model.
            formatter: the prompt to serve if the model does not have its own.

        Raises:
            CorruptArtifactError: the files differ from the manifest, or from the model that was loaded.
            PromptMismatchError: `formatter` is not the prompt next to the weights.
            BedrockError: S3 refused a request.
        """
        with tempfile.TemporaryDirectory() as directory:
            if merged := StoredMerge.copy(files.uri, files.sizes, files.read, Path(directory)):
                _require_same(merged.model.manifest, source)
                return cls(files.prefix.location, ModelExport.of(merged.model, formatter), merged)
        content = prefix_manifest(files.prefix)
        own = _formatter_of(files.prefix) if PROMPT_FILE in content.files else None
        require_same_prompt(own, formatter, f"{files.uri}{PROMPT_FILE}")
        return cls(files.prefix.location, ModelExport({}, content, own or formatter))

    def rewrite(self, s3: S3Client, *, sleep: Callable[[float], None]) -> None:
        """Rewrite the small files of a merged model in the service's dialect.

        Raises:
            BedrockError: S3 refused a request. The next import resumes.
        """
        if self.merged is not None:
            prefix = S3Prefix(s3, self.location)
            self.merged.rewrite(self.export.files, self.export.manifest, prefix, Transfer(prefix, sleep=sleep))


def _opened(source: ModelSource) -> MergedModel | Path:
    """Return a `MergedModel` if the source is a finished merged model, otherwise the path of the directory."""
    if isinstance(source, MergedModel):
        return source
    path = Path(source)
    try:
        is_merged = read_object(path / MANIFEST, lenient=True).get("kind") == MergedModel.kind
    except (OSError, ValueError):
        is_merged = False
    return MergedModel.load(path) if is_merged else path


def _require_same(found: Manifest, source: ModelSource) -> None:
    """Refuse a manifest that belongs neither to the loaded model nor to its export."""
    known = (found.digest, found.provenance.get("exported_from"))
    if isinstance(source, MergedModel) and source.manifest.digest not in known:
        raise CorruptArtifactError(
            f"{source.uri} was written again after this MergedModel was loaded. Load it again with MergedModel.load()."
        )


def _formatter_of(prefix: S3Prefix) -> PromptFormatter:
    """Load the prompt of a prefix from a temporary copy, because `PromptFormatter.load` checks directories only."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / PROMPT_FILE).write_bytes(prefix.read(PROMPT_FILE))
        return PromptFormatter.load(directory)


def prefix_manifest(prefix: S3Prefix) -> Manifest:
    """Describe the files directly below a prefix by the SHA-256 in their metadata, or by their ETag without one.

    For a prefix that `upload` wrote, the digest equals the digest of the uploaded manifest.

    Raises:
        BedrockError: there are no files, or S3 refused a request.
    """
    uri = prefix.location.uri_of("")
    files: dict[str, dict[str, str | int]] = {}
    with aws_errors(BedrockError, f"reading {uri}", service="bedrock"):
        for name, item in prefix.objects().items():
            if name != MANIFEST:
                sha256 = prefix.recorded_sha256(name) or f"etag:{item.etag}"
                files[name] = {"sha256": sha256, "bytes": item.size}
    if not files:
        raise BedrockError(
            f"there are no files directly below {uri}, and an import reads no subfolders. Check the URI."
        )
    return Manifest("s3-prefix", files, {})
