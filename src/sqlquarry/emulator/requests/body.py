"""The body of a request, which is checked while it is read."""

from __future__ import annotations

import hashlib
import io
from typing import IO, TYPE_CHECKING

from sqlquarry.emulator.requests.refusals import RequestRefusedError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import WSGIEnvironment

MAX_UPLOAD_BYTES = 5 << 30  # for PutObject and UploadPart ("Amazon S3 multipart upload limits")
MAX_BODY_BYTES = 25_000_000  # for all other requests: the limit of InvokeModel's `body` (Bedrock API reference)


class CheckedBody(io.RawIOBase):
    """The body of a request, which is counted and hashed while it is read.

    The reader never gets the last block of an invalid body.

    Args:
        source: stream of the connection.
        length: size by Content-Length. None if the end is marked in another way.
        limit: maximum size in bytes.
        sha256: expected SHA-256 (hex). None if it is not known.
    """

    def __init__(self, source: IO[bytes], length: int | None, *, limit: int, sha256: str | None = None) -> None:
        super().__init__()
        self._source, self._left, self._limit = source, length, limit
        self._wanted, self._digest = sha256, hashlib.sha256()
        self._ended = length == 0
        self._size = 0
        self.refusal: RequestRefusedError | None = None

    def read_whole(self) -> bytes:
        """Return the complete body.

        Raises:
            RequestRefusedError: it is too long or too short, arrives too late, or differs from the signed body.
        """
        try:
            return self.readall() or b""
        except OSError as error:
            raise self.refusal or error from error

    def readable(self) -> bool:  # noqa: D102 - method of io
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:  # noqa: D102 - method of io
        try:
            return self._next(memoryview(buffer).cast("B"))
        except RequestRefusedError as refusal:
            self.refusal = refusal
            raise OSError(refusal.message) from refusal

    def _next(self, buffer: memoryview) -> int:
        if self._ended or not len(buffer):
            return 0
        try:
            block = self._source.read(len(buffer) if self._left is None else min(len(buffer), self._left))
        except TimeoutError as error:
            raise RequestRefusedError("timeout", "The body of the request did not arrive in time.") from error
        except ConnectionError:
            raise
        except OSError as error:
            raise RequestRefusedError("body", f"The body of the request cannot be read: {error}.") from error
        if not block and self._left:
            raise RequestRefusedError("body", f"The body of the request is {self._left} bytes too short.")
        self._size += len(block)
        if self._size > self._limit:
            raise RequestRefusedError("size", f"The body of the request is longer than {self._limit} bytes.")
        if self._wanted is not None:
            self._digest.update(block)
        if self._left is not None:
            self._left -= len(block)
        self._ended = not block or self._left == 0
        if self._ended and self._wanted not in (None, self._digest.hexdigest()):
            raise RequestRefusedError(
                "payload", "The provided 'x-amz-content-sha256' header does not match what was computed."
            )
        buffer[: len(block)] = block
        return len(block)


def content_length(environ: WSGIEnvironment) -> int | None:
    """Return the length of a request's body, or None if the body is sent in chunks that mark its end.

    Raises:
        RequestRefusedError: the headers contradict each other, or the length is not a number.
    """
    text = environ.get("CONTENT_LENGTH", "")
    if "HTTP_TRANSFER_ENCODING" in environ:
        if text or environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":
            raise RequestRefusedError(
                "malformed", "Transfer-Encoding must be chunked, and Content-Length must not be sent with it."
            )
        return None
    if text and not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise RequestRefusedError("malformed", "Content-Length must be a number of bytes.")
    return int(text or 0)
