"""Say where files are: in a directory of this machine, or below a prefix of a bucket on S3."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from sqlquarry.errors import ConfigError

# A directory of such a name would be made without a word ("https:/bucket.s3.amazonaws.com/prefix").
_ELSEWHERE = re.compile(r"[a-z][a-z0-9+.-]+:/|arn:", re.IGNORECASE)
# `Path("s3://bucket/prefix")` has one slash; the scheme of a URI has no case (RFC 3986, 3.1).
_S3 = re.compile(r"s3:(?:/+([^/]*)(.*))?", re.IGNORECASE | re.DOTALL)
BUCKET_NAME = re.compile(r"[a-z0-9][-.a-z0-9]{1,61}[a-z0-9]")
_HUB_ID = re.compile(r"(?!\.)[\w.-]+/[\w.-]+")


@dataclass(frozen=True, slots=True)
class S3Location:
    """A prefix of a bucket, ``s3://bucket/prefix``.

    Args:
        bucket: name of the bucket.
        prefix: what the keys begin with; it ends with "/" unless it is empty.
    """

    bucket: str
    prefix: str = ""

    @classmethod
    def parse(cls, uri: str | Path) -> Self:
        """Split ``s3://bucket/prefix``, with or without slashes at its end.

        Raises:
            ConfigError: it is not such a URI, or names no bucket.
        """
        match = _S3.fullmatch(str(uri))
        if match is None or not match[1]:
            raise ConfigError(f"{str(uri)!r} does not name a place on S3. Give s3://bucket/prefix.")
        prefix = match[2].strip("/")
        return cls(match[1], f"{prefix}/" if prefix else "")

    def require_prefix(self, what: str) -> Self:
        """Return the location, unless it is a whole bucket, which would be mixed with other objects.

        Raises:
            ConfigError: there is no prefix.
        """
        if not self.prefix:
            raise ConfigError(f"{what} is the whole bucket {self}. Add a prefix of its own: {self}/my-model.")
        return self

    def uri_of(self, name: str) -> str:
        """Return the URI of an object below the prefix."""
        return f"s3://{self.bucket}/{self.prefix}{name}"

    def __str__(self) -> str:
        return self.uri_of("").rstrip("/")


def is_s3(location: object) -> bool:
    """Return whether a text or path names a place on S3, even one that cannot exist."""
    return isinstance(location, str | os.PathLike) and _S3.fullmatch(os.fspath(location)) is not None


def located(location: object) -> Path | S3Location:
    """Return the directory or the place on S3 that a caller has named; ``~`` is the home directory.

    Raises:
        ConfigError: it is neither text nor a path, an ARN or a URI of another kind, one of S3 without a bucket, or in
            the home of nobody.
    """
    if isinstance(location, S3Location):
        return location
    if not isinstance(location, str | os.PathLike):
        raise ConfigError(f"{location!r:.80} is not a place: give a directory or s3://bucket/prefix")
    text = os.fspath(location)
    if is_s3(text):
        return S3Location.parse(text)
    if _ELSEWHERE.match(text):
        raise ConfigError(f"{text!r:.200} is neither a directory nor on S3: give a directory or s3://bucket/prefix")
    try:
        return Path(text).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{text!r} is not a place: {error}") from error


def is_hub_id(location: str | Path) -> bool:
    """Whether a model is named by its Hugging Face id; a directory of that name wins, as in transformers."""
    return bool(_HUB_ID.fullmatch(str(location))) and not Path(location).exists()


def local_path(location: object, what: str) -> Path:
    """Return a place on this machine.

    Args:
        location: the place that a caller has named.
        what: the argument, for the message.

    Raises:
        ConfigError: it is on S3, or not a place at all.
    """
    place = located(location)
    if isinstance(place, S3Location):
        raise ConfigError(f"{what} is {place}, but must be on this machine. Give a local path.")
    return place
