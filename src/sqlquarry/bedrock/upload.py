"""Upload exactly a model's own files to one S3 prefix, with the manifest last. An interrupted upload resumes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING

from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.multipart import unfinished_uploads
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.aws.transfer import PART_BYTES, REQUESTS_IN_FLIGHT, Outgoing, Transfer
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.errors import BedrockError, OutputInUseError
from sqlquarry.files.locations import S3Location
from sqlquarry.manifests import MANIFEST
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.text import first_of

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


def upload(
    export: ModelExport,
    s3_uri: str,
    *,
    s3: S3Client,
    show_progress: bool = True,
    part_bytes: int = PART_BYTES,
    requests_in_flight: int = REQUESTS_IN_FLIGHT,
    sleep: Callable[[float], None] = time.sleep,
) -> int:
    """Upload an export to an S3 prefix. A second run uploads nothing, and an interrupted upload resumes.

    Objects with the right size and SHA-256 are skipped, and so are matching parts of unfinished uploads. Weights are
    uploaded first, so that no other file refers to missing weights. The upload needs `part_bytes` *
    `requests_in_flight` bytes of memory.

    Args:
        export: the files.
        s3_uri: ``s3://bucket/prefix``.
        s3: a boto3 S3 client.
        show_progress: show a progress bar (see `sqlquarry.progress.bar`).
        part_bytes: size of the parts into which large files are divided.
        requests_in_flight: maximum number of concurrent requests.
        sleep: waits between attempts. Tests replace it.

    Returns:
        The number of bytes in the files that were missing, without the manifest.

    Raises:
        CorruptArtifactError: a file differs from its SHA-256.
        OutputInUseError: another upload changed files of the prefix at the same time.
        BedrockError: the prefix contains files that are not part of this model, or S3 refused a request.
    """
    prefix = S3Prefix(s3, S3Location.parse(s3_uri))
    with aws_errors(BedrockError, f"uploading to {s3_uri}", service="bedrock"):
        present = {name: item.size for name, item in prefix.objects(deep=True).items()}
        _refuse_leftovers(present, export, s3_uri)
        pending = _pending(export, prefix, present)
        manifest = Outgoing.of_bytes(MANIFEST, export.manifest.content())
        was_finished = MANIFEST in present
        if not pending and was_finished and prefix.recorded_sha256(MANIFEST) == manifest.sha256:
            return 0
        if pending and was_finished:
            # With the old manifest, a half-replaced prefix would look finished.
            prefix.delete(MANIFEST)
        total = sum(file.size for file in pending)
        with ProgressBar(f"upload to {s3_uri}", total, unit="byte", show=show_progress) as bar:
            transfer = Transfer(
                prefix,
                part_bytes=part_bytes,
                requests_in_flight=requests_in_flight,
                sleep=sleep,
                sent=bar.advance,
            )
            for is_weight in (True, False):
                transfer.send([file for file in pending if file.name.endswith(".safetensors") == is_weight])
        _require_unchanged(export, prefix, s3_uri)
        transfer.send([manifest])
    return total


def discard_unfinished(s3_uri: str, *, s3: S3Client) -> int:
    """Abort unfinished uploads below a prefix, whose parts cost storage, and return their number.

    Raises:
        BedrockError: S3 refused a request.
    """
    place = S3Location.parse(s3_uri)
    with aws_errors(BedrockError, f"discarding unfinished uploads below {s3_uri}", service="bedrock"):
        found = unfinished_uploads(s3, place.bucket, place.prefix)
        for key, upload_id in found:
            s3.abort_multipart_upload(Bucket=place.bucket, Key=key, UploadId=upload_id)
    return len(found)


def _pending(export: ModelExport, prefix: S3Prefix, present: Mapping[str, int]) -> list[Outgoing]:
    """Return the files that are missing below a prefix or differ from it, in alphabetical order.

    Args:
        export: the files.
        prefix: the destination.
        present: files below the prefix -> bytes.
    """
    return [
        Outgoing(name, export.files[name], int(entry["bytes"]), str(entry["sha256"]))
        for name, entry in sorted(export.manifest.files.items())
        if present.get(name) != entry["bytes"] or prefix.recorded_sha256(name) != entry["sha256"]
    ]


def _require_unchanged(export: ModelExport, prefix: S3Prefix, s3_uri: str) -> None:
    described = export.manifest.files.items()
    changed = [name for name, entry in described if prefix.recorded_sha256(name) != entry["sha256"]]
    if changed:
        raise OutputInUseError(
            f"another upload is writing to {s3_uri} ({changed[0]} has changed), so this upload was not finished. "
            "Give each model its own prefix, then start the upload again."
        )


def _refuse_leftovers(present: Iterable[str], export: ModelExport, s3_uri: str) -> None:
    foreign = sorted(set(present) - export.manifest.files.keys() - {MANIFEST})
    if foreign:
        raise BedrockError(
            f"{s3_uri} already contains {len(foreign)} file(s) that are not part of this model "
            f"({first_of(foreign, 5)}). The service would read them too and fail. Use an empty prefix, or delete "
            "these files."
        )
