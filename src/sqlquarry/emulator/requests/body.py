"""The body of a request, which is checked while it is read."""

from __future__ import annotations

import hashlib
import io
from typing import IO, TYPE_CHECKING

from sqlquarry.emulator.requests.refusals import RequestRefusedError

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from _typeshed.wsgi import WSGIEnvironment

MAX_UPLOAD_BYTES = 5 << 30  # of one PutObject or UploadPart ("Amazon S3 multipart upload limits")
MAX_BODY_BYTES = 25_000_000  # of every other request: the longest `body` of InvokeModel (Bedrock API reference)


class CheckedBody(io.RawIOBase):
    """The body of a request, counted and hashed while it is read; the last block of a wrong one is never handed over.

    Args:
        source: the rest of the connection.
        length: its size by Content-Length; None if its end is marked in another way.
        limit: the most bytes that it may have.
        sha256: what it must hash to (hex); None if that is not known.
    """

    def __init__(self, source: IO[bytes], length: int | None, *, limit: int, sha256: str | None = None) -> None:
        super().__init__()
        self._source, self._left, self._limit = source, length, limit
        self._wanted, self._digest = sha256, hashlib.sha256()
        self._ended = length == 0
        self._size = 0
        self.refusal: RequestRefusedError | None = None

    def read_whole(self) -> bytes:
        """Return all of it.

        Raises:
            RequestRefusedError: it is too long, too short, late, or not what was signed.
        """
        try:
            return self.readall() or b""
        except OSError as error:
            raise self.refusal or error from error

    def readable(self) -> bool:  # noqa: D102 - io's own method
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:  # noqa: D102 - io's own method
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
            raise RequestRefusedError("body", f"The request ends {self._left} bytes before its Content-Length.")
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
                "payload", "The provided 'x-amz-content-sha256' does not match what was computed."
            )
        buffer[: len(block)] = block
        return len(block)


def content_length(environ: WSGIEnvironment) -> int | None:
    """Return the length of a request's body; None if it is sent in chunks, so that its end is marked in another way.

    Raises:
        RequestRefusedError: the headers contradict each other, or the length is not a number.
    """
    text = environ.get("CONTENT_LENGTH", "")
    if "HTTP_TRANSFER_ENCODING" in environ:
        if text or environ["HTTP_TRANSFER_ENCODING"].lower() != "chunked":
            raise RequestRefusedError(
                "malformed", "Transfer-Encoding must be chunked, and Content-Length must not be given with it."
            )
        return None
    if text and not (text.isascii() and text.isdecimal() and len(text) < 16):
        raise RequestRefusedError("malformed", "Content-Length must be a number of bytes.")
    return int(text or 0)
