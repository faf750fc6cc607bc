"""Parse the location of files: a local directory, or a prefix of an S3 bucket."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlquarry.errors import ConfigError

# As a path, such a text would silently become a directory ("https:/bucket.s3.amazonaws.com/prefix").
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]+:/|arn:", re.IGNORECASE)
# `Path("s3://bucket/prefix")` keeps only one slash. The scheme of a URI is case-insensitive (RFC 3986, 3.1).
_S3 = re.compile(r"s3:(?:/+([^/]*)(.*))?", re.IGNORECASE | re.DOTALL)
BUCKET_NAME = re.compile(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]")
_HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class S3Location:
    """A prefix of a bucket, ``s3://bucket/prefix``.

    Args:
        bucket: name of the bucket.
        prefix: the start of all keys. It ends with "/" unless it is empty.
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, uri: str | Path) -> Self:
        """Split ``s3://bucket/prefix``, with or without slashes at its end.

        Raises:
            ConfigError: `uri` is not such a URI, or has no bucket.
        """
        match = _S3.fullmatch(str(uri))
        if match is None or not match[1]:
            raise ConfigError(f"{str(uri)!r} is not a location on S3. Pass s3://bucket/prefix.")
        prefix = match[2].strip("/")
        return cls(match[1], f"{prefix}/" if prefix else "")

    def require_prefix(self, what: str) -> Self:
        """Return the location if it has a prefix, so that its files do not mix with other objects of the bucket.

        Args:
            what: the argument, for the message.

        Raises:
            ConfigError: there is no prefix.
        """
        if not self.prefix:
            raise ConfigError(f"{what} is the bucket {self} without a prefix. Add a prefix: {self}/my-model.")
        return self

    def uri_of(self, name: str) -> str:
        """Return the URI of an object below the prefix."""
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def __str__(self) -> str:
        return self.uri_of("").rstrip("/")


def is_s3(location: object) -> bool:
    """Return whether a text or path refers to S3, even if it is not a valid location there."""
    return isinstance(location, str | os.PathLike) and _S3.fullmatch(os.fspath(location)) is not None


def located(location: object) -> Path | S3Location:
    """Parse a location that a caller passed, with ``~`` as the home directory.

    Raises:
        ConfigError: `location` is neither text nor a path, an ARN or another kind of URI, an S3 URI without a bucket,
            or in the home directory of an unknown user.
    """
    if isinstance(location, S3Location):
        return location
    if not isinstance(location, str | os.PathLike):
        raise ConfigError(f"{location!r:.80} is not a location. Pass a directory or s3://bucket/prefix.")
    text = os.fspath(location)
    if is_s3(text):
        return S3Location.parse(text)
    if _ELSEWHERE.match(text):
        raise ConfigError(
            f"{text!r:.200} is neither a directory nor an S3 location. Pass a directory or s3://bucket/prefix."
        )
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text!r} is not a valid path ({error}). Pass the full path of a directory.") from error


def is_hub_id(location: str | Path) -> bool:
    """Return whether `location` is a Hugging Face model id. A directory of that name wins, as in transformers."""
    return bool(_HUB_ID.fullmatch(str(location))) and not Path(location).exists()


def local_path(location: object, what: str) -> Path:
    """Parse a location that must be on this machine.

    Args:
        location: the location that a caller passed.
        what: the argument, for the message.

    Raises:
        ConfigError: the location is on S3, or invalid.
    """
    place = located(location)
    if isinstance(place, S3Location):
        raise ConfigError(f"{what} is {place}, but it must be on this machine. Pass a local path.")
    return place


def cache_folder() -> Path:
    """Return the folder of conversions and copies that a later call finds again. It may not exist yet.

    Raises:
        RuntimeError: the user has no home directory.
    """
    return Path.home() / ".cache" / "sqlquarry"
