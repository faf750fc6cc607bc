"""List, read and complete the files of a model to adopt, in a local directory or below an S3 prefix."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Protocol

from sqlquarry.aws.failures import aws_errors, error_code
from sqlquarry.aws.prefix import CHANGED, S3Prefix
from sqlquarry.bedrock.export.chat_template import TEMPLATE_FILES
from sqlquarry.bedrock.export.metadata_files import CARRIED_FILES
from sqlquarry.checkpoints.foreign_model import CONFIG_SUFFIX
from sqlquarry.checkpoints.model_files import READ_FILES
from sqlquarry.checkpoints.safetensors_header import parse_header
from sqlquarry.errors import AdoptionError, MetadataError, OutputInUseError
from sqlquarry.extras import require
from sqlquarry.files.locations import S3Location, is_hub_id, located
from sqlquarry.files.locks import only_writer
from sqlquarry.files.metadata import path_inside
from sqlquarry.files.writing import write_atomically
from sqlquarry.manifests import MANIFEST
from sqlquarry.prompt import PROMPT_FILE

if TYPE_CHECKING:
    import boto3

# The files that transformers or Bedrock's server reads in addition to the weights.
SERVED_FILES = tuple(sorted({*READ_FILES, *CARRIED_FILES, *TEMPLATE_FILES} - {PROMPT_FILE}))
_MAX_OBJECTS = 5000  # a prefix with more is the wrong one
_READERS = 8


class FileState(NamedTuple):
    """The size of a file in bytes, and a text that changes when its content is written again."""

    size: int
    version: str


class ModelFiles(Protocol):
    """The files of a model. Names are relative and use "/"."""

    @property
    def location(self) -> Path | S3Location:
        """The directory or prefix."""
        ...

    def states(self) -> Mapping[str, FileState]:
        """List the files of the directory and of the folders in it."""
        ...

    def outline(self) -> AbstractContextManager[Path]:
        """Return a directory with all small files. Its safetensors files may contain zeros after their headers."""
        ...

    def read(self, name: str, start: int, length: int) -> bytes:
        """Read `length` bytes of a file from byte `start`, or fewer if the file ends earlier."""
        ...

    def reserve(self) -> AbstractContextManager[None]:
        """Lock the files until the context ends, if the storage has locks.

        Raises:
            OutputInUseError: another process is adopting the model.
            AdoptionError: the directory is read-only.
        """
        ...

    def create(self, name: str, content: bytes) -> None:
        """Write a file that does not exist yet, atomically.

        Raises:
            OutputInUseError: another process has written other content.
        """
        ...

    def errors(self) -> AbstractContextManager[None]:
        """Return a context that raises the storage's own errors as AdoptionError."""
        ...


def open_model_files(location: str | Path, session: boto3.Session | None) -> ModelFiles:
    """Return the files at a location.

    Raises:
        AdoptionError: the directory does not exist.
        ConfigError: the location is neither a path nor an S3 location.
        MissingExtraError: the location is on S3, but boto3 is not installed.
    """
    place = located(location)
    if isinstance(place, S3Location):
        require("aws", f"adopting {place}")
        return StoredModelFiles(S3Prefix.open(place, session))
    if place.is_dir():
        return LocalModelFiles(place)
    if place.exists():
        raise AdoptionError(f"{place} is a file. Pass the directory that contains the model's config.json.")
    if is_hub_id(place):
        raise AdoptionError(
            f"{str(place)!r} is not a directory here. To adopt a model of the Hugging Face hub, download it first: "
            f"hf download {place} --local-dir DIRECTORY."
        )
    raise AdoptionError(f"{place} does not exist. Pass the directory that contains the model's config.json.")


@dataclass(frozen=True, slots=True)
class LocalModelFiles:
    """The files of a local directory."""

    location: Path

    def states(self) -> dict[str, FileState]:
        """See `ModelFiles`."""
        paths = [path for pattern in ("*", "*/*") for path in sorted(self.location.glob(pattern)) if path.is_file()]
        found = {path.relative_to(self.location).as_posix(): path.stat() for path in paths}
        return {
            name: FileState(status.st_size, f"{status.st_ino} {status.st_mtime_ns}") for name, status in found.items()
        }

    def outline(self) -> AbstractContextManager[Path]:
        """See `ModelFiles`."""
        return nullcontext(self.location)

    def read(self, name: str, start: int, length: int) -> bytes:
        """See `ModelFiles`."""
        with path_inside(self.location, name, str(self.location)).open("rb") as file:
            file.seek(start)
            return file.read(length)

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """See `ModelFiles`."""
        with ExitStack() as stack:
            try:
                stack.enter_context(only_writer(self.location))
            except OSError as error:
                raise AdoptionError(
                    f"{self.location} cannot be written to ({error.strerror or error}), but adopt_model adds "
                    f"{PROMPT_FILE} and {MANIFEST} to it. Make the directory writable, or copy the model."
                ) from error
            yield

    def create(self, name: str, content: bytes) -> None:
        """See `ModelFiles`."""
        write_atomically(self.location / name, content)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """See `ModelFiles`."""
        try:
            yield
        except (OSError, MetadataError) as error:
            raise AdoptionError(
                f"adopting {self.location} failed: {error}. Repair the file, then call again."
            ) from error


@dataclass(frozen=True, slots=True)
class StoredModelFiles:
    """The objects below an S3 prefix. boto3's errors are raised unchanged, except within `errors`."""

    prefix: S3Prefix

    @property
    def location(self) -> S3Location:
        """See `ModelFiles`."""
        return self.prefix.location

    def states(self) -> dict[str, FileState]:
        """See `ModelFiles`."""
        objects = self.prefix.objects(deep=True, limit=_MAX_OBJECTS)
        if len(objects) >= _MAX_OBJECTS:
            raise AdoptionError(f"{self.location} has {_MAX_OBJECTS} objects or more. Pass the prefix of one model.")
        if not objects:
            raise AdoptionError(f"no model was found: {self.prefix.why_empty()}")
        return {name: FileState(item.size, item.etag) for name, item in objects.items()}

    @contextmanager
    def outline(self) -> Iterator[Path]:
        """See `ModelFiles`."""
        with tempfile.TemporaryDirectory() as directory:
            with ThreadPoolExecutor(_READERS) as pool:
                list(pool.map(partial(self._copy, Path(directory)), *zip(*self.states().items(), strict=True)))
            yield Path(directory)

    def _copy(self, directory: Path, name: str, state: FileState) -> None:
        """Copy a small file, or the header of a safetensors file, which is then extended to its size with zeros."""
        folder, _, file = name.rpartition("/")
        path = path_inside(directory, name, str(self.location))
        if not folder and file.endswith(".safetensors"):
            begin = bytearray()

            def read(start: int, length: int) -> bytes:
                begin[start:] = self.prefix.read_range(name, start, length)
                return bytes(begin[start:])

            with suppress(MetadataError):  # the checks of the outline find the same damage
                parse_header(name, state.size, read)
            with path.open("wb") as sparse:
                sparse.write(begin)
                sparse.truncate(state.size)
        elif file.endswith(CONFIG_SUFFIX) or (not folder and file in (*SERVED_FILES, PROMPT_FILE, MANIFEST)):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(self.prefix.read(name))

    def read(self, name: str, start: int, length: int) -> bytes:
        """See `ModelFiles`."""
        return self.prefix.read_range(name, start, length)

    def reserve(self) -> AbstractContextManager[None]:
        """See `ModelFiles`. S3 has no locks, but `create` notices another writer."""
        return nullcontext()

    def create(self, name: str, content: bytes) -> None:
        """See `ModelFiles`. S3 compares and writes in one step."""
        from botocore.exceptions import ClientError

        try:
            self.prefix.replace(name, content, None)
        except ClientError as error:
            if error_code(error) not in CHANGED:
                raise
            # The content is the same if botocore repeated a request whose first answer was lost.
            if self.prefix.read(name) != content:
                raise OutputInUseError(
                    f"another process is adopting {self.location} too and has written {name}. Call adopt_model again "
                    "when it has ended."
                ) from error

    @contextmanager
    def errors(self) -> Iterator[None]:
        """See `ModelFiles`."""
        with aws_errors(AdoptionError, f"adopting {self.location}", "The same call can be repeated."):
            try:
                yield
            except (OSError, MetadataError) as error:
                raise AdoptionError(f"adopting {self.location} failed: {error}. Repair the object.") from error
