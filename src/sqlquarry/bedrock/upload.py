"""A merged model on S3: exactly its own files below one prefix, resumable by content, the manifest last."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.progress import DownloadColumn, TransferSpeedColumn

from sqlquarry.artifacts import MANIFEST, MANIFEST_VERSION, Manifest, MergedModel
from sqlquarry.bedrock._progress import progress
from sqlquarry.bedrock.dialect import export_files
from sqlquarry.bedrock.failures import explained
from sqlquarry.bedrock.weights import INDEX
from sqlquarry.errors import BedrockError
from sqlquarry.prompt import PROMPT_FILE

# Uploaded as they are, where they exist; everything else in the directory stays at home.
_VERBATIM = ("tokenizer.json", "tokenizer.model", "vocab.json", "merges.txt", INDEX, PROMPT_FILE)
PARTS_IN_FLIGHT = 16
_PART_BYTES = 64 * 2**20
_SHA256 = "sha256"  # the object metadata that makes a second run skip what is there


@dataclass(frozen=True, slots=True)
class Export:
    """What a merged model looks like on S3: its files (content or path), and the manifest that describes them."""

    files: Mapping[str, bytes | Path]
    manifest: Manifest

    @classmethod
    def of(cls, merged: MergedModel) -> Export:
        """Rewrite the metadata and describe the result; reads no weights.

        The digest of this manifest is over the exported files, so it is another one when the dialect changes.
        """
        names = [n for n in merged.manifest.files if n.endswith(".safetensors") or n in _VERBATIM]
        verbatim = {name: merged.path / name for name in names if "/" not in name}
        rewritten = export_files(merged.path)
        entries = {name: merged.manifest.files[name] for name in verbatim} | {
            name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
            for name, content in rewritten.items()
        }
        provenance = {**merged.manifest.provenance, "exported_from": merged.manifest.digest}
        manifest = Manifest(merged.kind, dict(sorted(entries.items())), provenance)
        return cls({**rewritten, **verbatim}, manifest)


def upload(export: Export, s3_uri: str, *, s3: Any, show_progress: bool = True) -> int:
    """Bring an export to an S3 prefix; a second run uploads nothing, a broken one goes on where it stopped.

    Args:
        export: the files.
        s3_uri: ``s3://bucket/prefix``.
        s3: a boto3 S3 client.
        show_progress: draw a progress bar where stderr is a terminal.

    Returns:
        The number of bytes uploaded, manifest not counted.

    Raises:
        BedrockError: the prefix holds files of something else, or S3 refused.
    """
    from boto3.exceptions import S3UploadFailedError
    from boto3.s3.transfer import TransferConfig
    from botocore.exceptions import BotoCoreError, ClientError

    bucket, prefix = split_uri(s3_uri)
    transfer = TransferConfig(max_concurrency=PARTS_IN_FLIGHT, multipart_chunksize=_PART_BYTES)
    try:
        present = dict(_objects(s3, bucket, prefix))
        _refuse_leftovers(present, export, s3_uri)
        pending = [
            name
            for name, entry in export.manifest.files.items()
            if present.get(name) != entry["bytes"] or _stored_sha256(s3, bucket, prefix + name) != entry["sha256"]
        ]
        manifest = _manifest_json(export.manifest)
        digest = hashlib.sha256(manifest).hexdigest()
        if not pending and MANIFEST in present and _stored_sha256(s3, bucket, prefix + MANIFEST) == digest:
            return 0
        if pending and MANIFEST in present:
            # The old manifest would call a half replaced prefix finished.
            s3.delete_object(Bucket=bucket, Key=prefix + MANIFEST)
        total = sum(int(export.manifest.files[name]["bytes"]) for name in pending)
        with progress(DownloadColumn(), TransferSpeedColumn(), show=show_progress) as bar:
            task = bar.add_task(f"upload to {s3_uri}", total=total)
            for name in pending:
                content, key = export.files[name], prefix + name
                metadata = {_SHA256: str(export.manifest.files[name]["sha256"])}
                if isinstance(content, bytes):
                    s3.put_object(Bucket=bucket, Key=key, Body=content, Metadata=metadata)
                    bar.advance(task, len(content))
                else:
                    s3.upload_file(
                        str(content),
                        bucket,
                        key,
                        ExtraArgs={"Metadata": metadata},
                        Config=transfer,
                        Callback=lambda sent: bar.advance(task, sent),
                    )
        s3.put_object(Bucket=bucket, Key=prefix + MANIFEST, Body=manifest, Metadata={_SHA256: digest})
    except (BotoCoreError, ClientError, S3UploadFailedError) as error:
        # upload_file hides AWS's code in the error that it wraps.
        cause = error.__context__ if isinstance(error.__context__, ClientError) else error
        raise explained(cause, f"uploading to {s3_uri}") from error
    return total


def split_uri(s3_uri: str) -> tuple[str, str]:
    """Bucket and key prefix of ``s3://bucket/prefix``; the prefix ends with "/" unless it is empty."""
    bucket, _, prefix = s3_uri.removeprefix("s3://").partition("/")
    prefix = prefix.strip("/")
    return bucket, f"{prefix}/" if prefix else ""


def _objects(s3: Any, bucket: str, prefix: str) -> Iterator[tuple[str, int]]:
    for page in s3.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix):
        for item in page.get("Contents", ()):
            name = item["Key"].removeprefix(prefix)
            # The console marks a folder with an empty object.
            if name and not name.endswith("/"):
                yield name, item["Size"]


def _refuse_leftovers(present: Mapping[str, int], export: Export, s3_uri: str) -> None:
    foreign = sorted(present.keys() - export.manifest.files.keys() - {MANIFEST})
    if foreign:
        shown = ", ".join(foreign[:5]) + (", …" if len(foreign) > 5 else "")
        raise BedrockError(
            f"{s3_uri} already holds {len(foreign)} file(s) that are not part of this model ({shown}). The service "
            "would read them as well and fail. Give an empty prefix, or delete them."
        )


def _stored_sha256(s3: Any, bucket: str, key: str) -> str | None:
    metadata: Mapping[str, str] = s3.head_object(Bucket=bucket, Key=key).get("Metadata", {})
    return metadata.get(_SHA256)


def _manifest_json(manifest: Manifest) -> bytes:
    content = {"version": MANIFEST_VERSION, **dataclasses.asdict(manifest)}
    return (json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode()
