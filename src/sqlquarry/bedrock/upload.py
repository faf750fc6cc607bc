"""A model on S3: exactly its own files below one prefix, resumable by content, the manifest last."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlquarry.artifacts import MANIFEST
from sqlquarry.aws.failures import bedrock_error
from sqlquarry.aws.multipart import unfinished_uploads
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.aws.transfer import PART_BYTES, REQUESTS_IN_FLIGHT, Outgoing, Transfer
from sqlquarry.bedrock.export import Export
from sqlquarry.errors import BedrockError, OutputInUseError
from sqlquarry.files.locations import S3Location
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.text import first_of


def upload(
    export: Export,
    s3_uri: str,
    *,
    s3: Any,
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
    from botocore.exceptions import BotoCoreError, ClientError

    prefix = S3Prefix(s3, S3Location.parse(s3_uri))
    try:
        present = {name: item.size for name, item in prefix.objects(deep=True).items()}
        _refuse_leftovers(present, export, s3_uri)
        pending = [
            name
            for name, entry in export.manifest.files.items()
            if present.get(name) != entry["bytes"] or prefix.recorded_sha256(name) != entry["sha256"]
        ]
        manifest = export.manifest.content()
        if (
            not pending
            and MANIFEST in present
            and prefix.recorded_sha256(MANIFEST) == hashlib.sha256(manifest).hexdigest()
        ):
            return 0
        if pending and MANIFEST in present:
            # The old manifest would call a half replaced prefix finished.
            prefix.delete(MANIFEST)
        files = [_outgoing(export, name) for name in sorted(pending)]
        weights = [file for file in files if file.name.endswith(".safetensors")]
        total = sum(file.size for file in files)
        with ProgressBar(f"upload to {s3_uri}", total, unit="byte", show=show_progress) as bar:
            transfer = Transfer(
                prefix,
                part_bytes=part_bytes,
                requests_in_flight=requests_in_flight,
                sleep=sleep,
                sent=bar.advance,
            )
            transfer.send(weights)
            transfer.send([file for file in files if file not in weights])
        described = export.manifest.files.items()
        changed = [name for name, entry in described if prefix.recorded_sha256(name) != entry["sha256"]]
        if changed:
            raise OutputInUseError(
                f"{s3_uri} is being written by another upload ({changed[0]} has changed meanwhile), so it was not "
                "finished. Give each model a prefix of its own, and run this again."
            )
        transfer.send([Outgoing.of_bytes(MANIFEST, manifest)])
    except (BotoCoreError, ClientError) as error:
        raise bedrock_error(error, f"uploading to {s3_uri}") from error
    return total


def discard_unfinished(s3_uri: str, *, s3: Any) -> int:
    """Abort what broken uploads left below a prefix, whose parts cost storage; returns how many there were.

    Raises:
        BedrockError: S3 refused.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    place = S3Location.parse(s3_uri)
    try:
        found = unfinished_uploads(s3, place.bucket, place.prefix)
        for key, upload_id in found:
            s3.abort_multipart_upload(Bucket=place.bucket, Key=key, UploadId=upload_id)
    except (BotoCoreError, ClientError) as error:
        raise bedrock_error(error, f"discarding unfinished uploads below {s3_uri}") from error
    return len(found)


def _outgoing(export: Export, name: str) -> Outgoing:
    entry = export.manifest.files[name]
    return Outgoing(name, export.files[name], int(entry["bytes"]), str(entry["sha256"]))


def _refuse_leftovers(present: Iterable[str], export: Export, s3_uri: str) -> None:
    foreign = sorted(set(present) - export.manifest.files.keys() - {MANIFEST})
    if foreign:
        raise BedrockError(
            f"{s3_uri} already holds {len(foreign)} file(s) that are not part of this model "
            f"({first_of(foreign, 5)}). The service would read them as well and fail. Give an empty prefix, or delete "
            "them."
        )
