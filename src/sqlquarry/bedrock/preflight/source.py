"""Read names, sizes and byte ranges of a checkpoint's files in a local directory or below an S3 prefix."""

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

# No checkpoint has this many files. A prefix with more is the wrong one, and listing it would take minutes.
_MAX_OBJECTS = 5000
_REFUSED_KEY = ("AccessDenied", "403", "NoSuchKey", "404", "InvalidObjectState", "KMS.DisabledException")


def source_location(source: object) -> Path | S3Location:
    """Return the location of a model that a caller has given as an object, text or path.

    Raises:
        ConfigError: `source` is something else.
    """
    if isinstance(source, AdapterCheckpoint):
        raise ConfigError(
            f"{source.uri} is an adapter, but Bedrock serves full models only. Merge it with "
            "AdapterMerger().merge(adapter, output_dir), then pass the merged model."
        )
    if isinstance(source, MergedModel):
        return source.location
    try:
        return located(source)
    except ConfigError as error:
        raise ConfigError(f"{str(error).rstrip('.')}. Pass a MergedModel or a model's location.") from error


class Source(Protocol):
    """The files of a checkpoint. Names are relative and use "/"."""

    @property
    def sizes(self) -> Mapping[str, int]:
        """File -> bytes."""
        ...

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """Read a range of a file, or all of it.

        Raises:
            OSError: the file cannot be read.
        """
        ...


class LocalSource:
    """A directory and its direct subfolders, without hidden files, which belong to other tools.

    Raises:
        ConfigError: the directory does not exist.
    """

    def __init__(self, directory: Path) -> None:
        if not directory.is_dir():
            kind = "is a file, not a directory" if directory.is_file() else "does not exist"
            raise ConfigError(f"{directory} {kind}. Pass a directory with config.json and *.safetensors.")
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
    """A source that reads files from a directory if they are there, and otherwise from another source."""

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
        session: a boto3 session. None uses the default credentials.
        region: the region of the S3 client. None uses the session's region, or us-east-1 if it has none.

    Raises:
        BedrockError: the prefix cannot be listed, or contains far more files than a model.
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
            raise BedrockError(f"{self.uri} contains {_MAX_OBJECTS} objects or more. Pass the prefix of one model.")
        self.sizes: Mapping[str, int] = {name: item.size for name, item in sorted(objects.items())}

    def read(self, name: str, start: int = 0, length: int | None = None) -> bytes:
        """As `Source.read`.

        Raises:
            BedrockError: S3 did not answer (network, credentials), so the file may be fine.
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
    # S3 answers from any region, so a prefix can be checked before a region is configured.
    return None if session is not None and session.region_name else "us-east-1"
