"""Store large objects of the emulated S3 in files without loading them into memory.

moto also stores objects in files, but it reads every part of an upload into memory. To complete an upload, it holds the
complete object several times, so weights would need four times their size. Here a part goes from the socket directly
into a file, and the files are joined. moto does everything else, including refusals.
"""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Protocol
from urllib.parse import parse_qs

from sqlquarry.emulator.bedrock.admission import ImportFailedError
from sqlquarry.emulator.moto.state import bucket_region

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_BLOCK_BYTES = 1 << 20


class MotoObject(Protocol):
    """The part of moto's FakeKey that the emulator uses. A FakeKey is an object or a part of an upload."""

    lock: AbstractContextManager[object]
    etag: str
    contentsize: int
    _value_buffer: io.IOBase
    _etag: str


class MotoUpload(Protocol):
    """The part of moto's FakeMultipart that the emulator uses."""

    parts: Mapping[int, MotoObject]

    def set_part(self, number: int, value: IO[bytes]) -> MotoObject:
        """Store the content of a part."""
        ...


def fetch_objects(bucket: str, prefix: str, directory: Path, *, account: str, region: str) -> None:
    """Copy the objects directly below a prefix into a directory, block by block.

    Raises:
        ImportFailedError: the bucket does not exist or is in another region.
    """
    from moto.s3.exceptions import MissingBucket
    from moto.s3.models import FakeKey, s3_backends

    try:
        keys = dict(s3_backends[account]["aws"].get_bucket(bucket).keys.items())
    except MissingBucket as error:
        raise ImportFailedError(f"could not access the bucket {bucket}") from error
    if (actual := bucket_region(bucket, account)) != region:
        raise ImportFailedError(f"could not access the bucket {bucket}: it is in {actual}, but the job is in {region}")
    folder = f"{prefix}/" if prefix else ""
    for name, key in keys.items():
        file_name = name.removeprefix(folder)
        # Skip delete markers, which are not FakeKeys, and subfolders, which do not belong to the model.
        if name.startswith(folder) and file_name and "/" not in file_name and isinstance(key, FakeKey):
            with (directory / file_name).open("wb") as file:
                _copy(key, file)


def install() -> Callable[[], None]:
    """Let moto accept open files as values of objects, and complete uploads as files.

    Return a function that undoes this.
    """
    from moto.s3.models import FakeKey, FakeMultipart

    stock_value, stock_complete = FakeKey.value, FakeMultipart.complete

    def set_value(key: MotoObject, value: object) -> None:
        if isinstance(value, io.IOBase):
            key._value_buffer.close()  # noqa: SLF001 - see compatibility.RELIES_ON
            key._value_buffer, key.contentsize = value, value.seek(0, os.SEEK_END)  # noqa: SLF001 - as above
        else:
            stock_value.fset(key, value)

    def uninstall() -> None:
        FakeKey.value, FakeMultipart.complete = stock_value, stock_complete

    FakeKey.value, FakeMultipart.complete = property(stock_value.fget, set_value), _complete
    return uninstall


def receive_parts(application: WSGIApplication, account: str) -> WSGIApplication:
    """Return a wrapper of `application` that stores the parts of uploads itself if moto would accept them."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        destination = _destination(environ, account)
        if destination is None:
            return application(environ, start_response)
        upload, number = destination
        file, md5 = _receive(environ["wsgi.input"], int(environ["CONTENT_LENGTH"]))
        part = upload.set_part(number, file)
        part._etag = md5  # noqa: SLF001 - otherwise moto reads the complete file to compute it
        start_response("200 OK", [("ETag", part.etag), ("Content-Length", "0"), *_checksums(environ)])
        return []

    return respond


def _destination(environ: WSGIEnvironment, account: str) -> tuple[MotoUpload, int] | None:
    """Return the upload that a part belongs to and the part's number, or None if moto must answer the request."""
    from moto.s3.models import s3_backends

    query = parse_qs(environ["QUERY_STRING"])
    number = query.get("partNumber", [""])[0]
    if (
        environ["REQUEST_METHOD"] != "PUT"
        or not (number.isdecimal() and 1 <= int(number) <= 10_000)
        or not environ.get("CONTENT_LENGTH")
        or "HTTP_X_AMZ_COPY_SOURCE" in environ
        # Such bodies contain signatures or trailers between chunks. botocore sends them over TLS only.
        or environ.get("HTTP_X_AMZ_CONTENT_SHA256", "").startswith("STREAMING-")
    ):
        return None
    bucket = s3_backends[account]["aws"].buckets.get(environ["PATH_INFO"].lstrip("/").split("/")[0])
    upload = bucket.multiparts.get(query.get("uploadId", [""])[0]) if bucket else None
    return (upload, int(number)) if upload else None


def _receive(body: IO[bytes], size: int) -> tuple[IO[bytes], str]:
    """Return a file with the next `size` bytes of a request, and the MD5 (hex) of these bytes."""
    file, digest = tempfile.TemporaryFile(), hashlib.md5(usedforsecurity=False)  # noqa: SIM115 - it must stay open
    while size:
        block = body.read(min(size, _BLOCK_BYTES))
        if not block:
            raise ConnectionError(f"the client closed the connection {size} bytes before the end of a part")
        file.write(block)
        digest.update(block)
        size -= len(block)
    return file, digest.hexdigest()


def _checksums(environ: WSGIEnvironment) -> Iterator[tuple[str, str]]:
    # S3 answers with the checksum that came with the part. botocore sends it again to complete the upload.
    for name, value in environ.items():
        if name.startswith("HTTP_X_AMZ_CHECKSUM_"):
            yield name.removeprefix("HTTP_").replace("_", "-"), value


def _complete(upload: MotoUpload, named: Iterable[tuple[int, str]]) -> tuple[IO[bytes], str, None]:
    """Return the same as FakeMultipart.complete: the object, its ETag, and None as the checksum of the object."""
    from moto.s3.exceptions import EntityTooSmall, InvalidPart, MalformedXML
    from moto.settings import S3_UPLOAD_PART_MIN_SIZE

    parts: list[MotoObject] = []
    for number, etag in named:
        part = upload.parts.get(number)
        if part is None or part.etag.strip('"') != etag.strip('"'):
            raise InvalidPart
        if parts and parts[-1].contentsize < S3_UPLOAD_PART_MIN_SIZE:
            raise EntityTooSmall
        parts.append(part)
    if not parts:
        raise MalformedXML
    whole, digest = tempfile.TemporaryFile(), hashlib.md5(usedforsecurity=False)  # noqa: SIM115 - it must stay open
    for part in parts:
        _copy(part, whole)
        digest.update(bytes.fromhex(part.etag.strip('"')))
    return whole, f"{digest.hexdigest()}-{len(parts)}", None


def _copy(key: MotoObject, target: IO[bytes]) -> None:
    with key.lock:
        key._value_buffer.seek(0)  # noqa: SLF001 - `value` would read the complete object into memory
        shutil.copyfileobj(key._value_buffer, target, _BLOCK_BYTES)  # noqa: SLF001 - as above
