"""Read a checkpoint's files, in a local directory or below an S3 prefix: names, sizes, and ranges of bytes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.aws import aws_client
from sqlquarry.aws.failures import aws_errors, bedrock_error, error_code
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.errors import BedrockError, ConfigError
from sqlquarry.files.locations import S3Location, located

if TYPE_CHECKING:
    import boto3

# More than any checkpoint has; a prefix with more is the wrong one, and listing it all would take minutes.
_MAX_OBJECTS = 5000
_REFUSED_KEY = ("AccessDenied", "403", "NoSuchKey", "404", "InvalidObjectState", "KMS.DisabledException")


def source_location(source: object) -> Path | S3Location:
    """Return where a model is that a caller has given as such, as text or as a path.

    Raises:
        ConfigError: it is something else.
    """
    if isinstance(source, AdapterCheckpoint):
        raise ConfigError(
            f"{source.uri} is an adapter, and Bedrock serves whole models. Merge it first: "
            "AdapterMerger().merge(adapter, output_dir), and give the merged model."
        )
    if isinstance(source, MergedModel):
        return source.location
    try:
        return located(source)
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}. A model is a MergedModel, or where one is.") from error


class Source(Protocol):
    """Where a checkpoint is; names are relative, with "/"."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """File -> bytes."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Read some of a file, or all of it.

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
    """The objects below ``s3://bucket/prefix``, listed once and read in ranges.

    Args:
        location: the prefix.
        session: a boto3 session; None uses the default credentials.
        region: where the bucket is reached; None takes the session's, or else us-east-1.

    Raises:
        BedrockError: the prefix cannot be listed, or holds far more than a model.
    """

    def __init__(
        self,
        location: S3Location,
        *,
        session: boto3.Session | None,
        region: str | None = None,
    ) -> None:
        client = aws_client("s3", session, region=region or _default_region(session))
        self.prefix, self.uri = S3Prefix(client, location), location.uri_of("")
        with aws_errors(BedrockError, f"listing {self.uri}", service="bedrock"):
            objects = self.prefix.objects(deep=True, limit=_MAX_OBJECTS)
        if len(objects) >= _MAX_OBJECTS:
            raise BedrockError(f"{self.uri} holds {_MAX_OBJECTS} objects or more. Give the prefix of one model.")
        self.sizes: Mapping[str, int] = {name: item.size for name, item in sorted(objects.items())}

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As `Source.read`.

        Raises:
            BedrockError: S3 cannot be asked (network, credentials), which is not the file's matter.
        """
        from botocore.exceptions import BotoCoreError, ClientError

        try:
            if length is None:
                return self.prefix.read(name)
            return self.prefix.read_range(name, start, length)
        except (BotoCoreError, ClientError) as error:
            told = bedrock_error(error, f"reading {self.uri}{name}")
            if error_code(error) in _REFUSED_KEY:
                raise OSError(str(told)) from error
            raise told from error


def _default_region(session: boto3.Session | None) -> str | None:
    # S3 answers from any region; without this, a prefix could not be checked before a region is configured.
    return None if session is not None and session.region_name else "us-east-1"
