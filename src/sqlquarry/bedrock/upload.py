"""A model on S3: exactly its own files below one prefix, resumable by content, the manifest last."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable
from typing import Any

from sqlquarry.artifacts import MANIFEST
from sqlquarry.aws.advice import explained
from sqlquarry.aws.transfer import PART_BYTES, REQUESTS_IN_FLIGHT, Outgoing, Transfer
from sqlquarry.bedrock.export import Export
from sqlquarry.bedrock.prefix import Prefix
from sqlquarry.errors import BedrockError, OutputInUseError
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

    prefix = Prefix.of(s3, s3_uri)
    try:
        present = {name: item.size for name, item in prefix.objects().items()}
        _refuse_leftovers(present, export, s3_uri)
        pending = [
            name
            for name, entry in export.manifest.files.items()
            if present.get(name) != entry["bytes"] or prefix.sha256(name) != entry["sha256"]
        ]
        manifest = export.manifest.content()
        digest = hashlib.sha256(manifest).hexdigest()
        if not pending and MANIFEST in present and prefix.sha256(MANIFEST) == digest:
            return 0
        if pending and MANIFEST in present:
            # The old manifest would call a half replaced prefix finished.
            s3.delete_object(Bucket=prefix.bucket, Key=prefix.prefix + MANIFEST)
        files = [_outgoing(export, prefix, name) for name in sorted(pending)]
        weights = [file for file in files if file.key.endswith(".safetensors")]
        total = sum(file.size for file in files)
        with ProgressBar(f"upload to {s3_uri}", total, unit="byte", show=show_progress) as bar:
            transfer = Transfer(
                s3,
                prefix.bucket,
                part_bytes=part_bytes,
                requests_in_flight=requests_in_flight,
                sleep=sleep,
                sent=bar.advance,
            )
            transfer.send(weights, prefix.prefix)
            transfer.send([file for file in files if file not in weights], prefix.prefix)
        changed = [name for name, entry in export.manifest.files.items() if prefix.sha256(name) != entry["sha256"]]
        if changed:
            raise OutputInUseError(
                f"{s3_uri} is being written by another upload ({changed[0]} has changed meanwhile), so it was not "
                "finished. Give each model a prefix of its own, and run this again."
            )
        transfer.send([Outgoing(prefix.prefix + MANIFEST, manifest, len(manifest), digest)], prefix.prefix)
    except (BotoCoreError, ClientError) as error:
        raise explained(error, f"uploading to {s3_uri}") from error
    return total


def discard_unfinished(s3_uri: str, *, s3: Any) -> int:
    """Abort what broken uploads left below a prefix, whose parts cost storage; returns how many there were.

    Raises:
        BedrockError: S3 refused.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    prefix = Prefix.of(s3, s3_uri)
    try:
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=prefix.bucket, Prefix=prefix.prefix)
        found = [item for page in pages for item in page.get("Uploads", ())]
        for item in found:
            s3.abort_multipart_upload(Bucket=prefix.bucket, Key=item["Key"], UploadId=item["UploadId"])
    except (BotoCoreError, ClientError) as error:
        raise explained(error, f"discarding unfinished uploads below {s3_uri}") from error
    return len(found)


def _outgoing(export: Export, prefix: Prefix, name: str) -> Outgoing:
    entry = export.manifest.files[name]
    return Outgoing(prefix.prefix + name, export.files[name], int(entry["bytes"]), str(entry["sha256"]))


def _refuse_leftovers(present: Iterable[str], export: Export, s3_uri: str) -> None:
    foreign = sorted(set(present) - export.manifest.files.keys() - {MANIFEST})
    if foreign:
        raise BedrockError(
            f"{s3_uri} already holds {len(foreign)} file(s) that are not part of this model "
            f"({first_of(foreign, 5)}). The service would read them as well and fail. Give an empty prefix, or delete "
            "them."
        )
