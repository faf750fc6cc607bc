"""Upload a model: exactly its own files below one prefix, resumable by content, the manifest last."""

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
    """Bring an export to an S3 prefix; a second run uploads nothing, a broken one resumes where it stopped.

    Objects of the right size and SHA-256 are left alone, and so are the parts of unfinished uploads. Weights go first:
    what names them is not there before they are. Memory: `part_bytes` * `requests_in_flight`.

    Args:
        export: the files.
        s3_uri: ``s3://bucket/prefix``.
        s3: a boto3 S3 client.
        show_progress: show how far it is (see `sqlquarry.progress.bar`).
        part_bytes: size of the parts in which large files travel.
        requests_in_flight: requests at a time.
        sleep: waits between tries; injected by tests.

    Returns:
        The number of bytes of the files that were not there, manifest not counted.

    Raises:
        CorruptArtifactError: a file differs from its SHA-256.
        OutputInUseError: another upload changed files of the prefix meanwhile.
        BedrockError: the prefix holds files of something else, or S3 refused.
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
            # The old manifest would call a half replaced prefix finished.
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
    """Abort what broken uploads left below a prefix, whose parts cost storage; returns how many there were.

    Raises:
        BedrockError: S3 refused.
    """
    place = S3Location.parse(s3_uri)
    with aws_errors(BedrockError, f"discarding unfinished uploads below {s3_uri}", service="bedrock"):
        found = unfinished_uploads(s3, place.bucket, place.prefix)
        for key, upload_id in found:
            s3.abort_multipart_upload(Bucket=place.bucket, Key=key, UploadId=upload_id)
    return len(found)


def _pending(export: ModelExport, prefix: S3Prefix, present: Mapping[str, int]) -> list[Outgoing]:
    """Return the files that are missing below a prefix, or differ there, in alphabetical order.

    Args:
        export: the files.
        prefix: where they are to be.
        present: the files that are there -> bytes.
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
            f"{s3_uri} is being written by another upload ({changed[0]} has changed meanwhile), so it was not "
            "finished. Give each model a prefix of its own, and run this again."
        )


def _refuse_leftovers(present: Iterable[str], export: ModelExport, s3_uri: str) -> None:
    foreign = sorted(set(present) - export.manifest.files.keys() - {MANIFEST})
    if foreign:
        raise BedrockError(
            f"{s3_uri} already holds {len(foreign)} file(s) that are not part of this model "
            f"({first_of(foreign, 5)}). The service would read them as well and fail. Give an empty prefix, or delete "
            "them."
        )
