"""A checkpoint's files, in a local directory or below an S3 prefix: names, sizes, and ranges of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.aws import aws_client
from sqlquarry.aws.advice import explained
from sqlquarry.aws.failures import error_code
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.files.locations import S3Location, located

# More than any checkpoint has; a prefix with more is the wrong one, and listing it all would take minutes.
_MAX_KEYS = 5000
_REFUSED_KEY = ("AccessDenied", "403", "NoSuchKey", "404", "InvalidObjectState", "KMS.DisabledException")


def source_location(source: Any) -> Path | S3Location:
    """Return where a model is that a caller has given as such, as text or as a path.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(source, AdapterCheckpoint):
        raise ConfigError(
            f"{source.uri} is an adapter, and Bedrock serves whole models. Merge it first: "
            "AdapterMerger().merge(adapter, output), and give the merged model."
        )
    if isinstance(source, MergedModel):
        return source.location
    try:
        return located(source)
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}. A model is a MergedModel, or where one is.") from error


class Source(Protocol):
    """Where a checkpoint lies; names are relative, with "/"."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """File -> bytes."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Some of a file, or all of it.

        Raises:
            OSError: it cannot be read.
        """
        ...


class LocalSource:
    """A directory and the folders right below it; hidden files are those of tools.

    Raises:
        ConfigError: there is no such directory.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            kind = "is a file; unpack it, and give the directory" if directory.is_file() else "does not exist"
            raise ConfigError(f"{directory} {kind}. Preflight takes a directory with config.json and *.safetensors.")
        self.directory = directory
        paths = [path for pattern in ("*", "*/*") for path in directory.glob(pattern) if path.is_file()]
        names = {path: path.relative_to(directory).as_posix() for path in paths}
        self.sizes: Mapping[str, int] = {
            name: path.stat().st_size
            for path, name in sorted(names.items())
            if not any(part.startswith(".") for part in name.split("/"))
        }

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As `Source.read`."""
        with (self.directory / name).open("rb") as file:
            file.seek(start)
            return file.read(-1 if length is None else length)


class CopiedSource:
    """Another source, of which some files are in a directory as well and are read there."""

    def __init__(self, source: Source, directory: Path) -> None:
        self._source, self._directory, self.sizes = source, directory, source.sizes

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As `Source.read`."""
        path = self._directory / name
        if not path.is_file():
            return self._source.read(name, start, length)
        content = path.read_bytes()
        return content[start:] if length is None else content[start : start + length]


class S3Source:
    """The objects below ``s3://bucket/prefix``, listed once; contents by ranged GETs.

    Raises:
        BedrockError: the prefix cannot be listed, or holds far more than a model.
    """

    def __init__(
        self, location: S3Location, *, session: Any, endpoint_url: str | None = None, region: str | None = None
    ) -> None:
        from botocore.exceptions import BotoCoreError, ClientError

        self.bucket, self.prefix, self.uri = location.bucket, location.prefix, location.uri_of("")
        self.client = aws_client("s3", session, endpoint_url=endpoint_url, region=region or _default_region(session))
        pages = self.client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix, PaginationConfig={"MaxItems": _MAX_KEYS}
        )
        try:
            objects = {item["Key"]: int(item["Size"]) for page in pages for item in page.get("Contents", ())}
        except (BotoCoreError, ClientError) as error:
            raise explained(error, f"listing {self.uri}") from error
        if len(objects) >= _MAX_KEYS:
            raise BedrockError(f"{self.uri} holds {_MAX_KEYS} objects or more. Give the prefix of one model.")
        names = {key.removeprefix(self.prefix): size for key, size in objects.items()}
        # The console marks a folder with an empty object.
        self.sizes: Mapping[str, int] = {n: size for n, size in sorted(names.items()) if n and not n.endswith("/")}

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As `Source.read`.

        Raises:
            BedrockError: S3 cannot be asked (network, credentials), which is not the file's matter.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        key = self.prefix + name
        if length == 0:
            return b""
        try:
            if length is None:
                return self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
            part = f"bytes={start}-{start + length - 1}"
            return self.client.get_object(Bucket=self.bucket, Key=key, Range=part)["Body"].read()
        except (BotoCoreError, ClientError) as error:
            told = explained(error, f"reading s3://{self.bucket}/{key}")
            if error_code(error) in _REFUSED_KEY:
                raise OSError(str(told)) from error
            raise told from error


def _default_region(session: Any) -> str | None:
    # S3 answers from any region; without this, a prefix could not be checked before a region is configured.
    return None if session is not None and session.region_name else "us-east-1"
