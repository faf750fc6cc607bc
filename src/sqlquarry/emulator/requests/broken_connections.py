"""Break connections on purpose, in the middle of a request or of an answer."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable, Iterator
from typing import IO, TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# Key in a request's environment for the number of bytes of the answer after which the connection breaks.
CUT_AFTER = "sqlquarry.cut_after"
_BLOCK_BYTES = 1 << 20


def cut_answers(application: WSGIApplication) -> WSGIApplication:
    """Return a wrapper of `application` that cuts its answers if `CUT_AFTER` is set in the request's environment."""

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answer = application(environ, start_response)
        return _cut(answer, environ) if CUT_AFTER in environ else answer

    return respond


def _cut(answer: Iterable[bytes], environ: WSGIEnvironment) -> Iterator[bytes]:
    left: int = environ[CUT_AFTER]
    for block in answer:
        if len(block) >= left:
            if left:
                yield block[:left]
            break_connection(environ)
        yield block
        left -= len(block)


def break_connection(environ: WSGIEnvironment) -> NoReturn:
    """Close the connection of a request so that the client gets an error.

    Raises:
        ConnectionResetError: always, to stop the server from answering.
    """
    connection: socket.socket = environ["werkzeug.socket"]
    # With this option, closing sends RST instead of FIN. The shutdown keeps the server from reading another request.
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.shutdown(socket.SHUT_RDWR)
    raise ConnectionResetError("a fault breaks this connection")


def discard(body: IO[bytes], size: int) -> None:
    """Read and discard the next `size` bytes of a request."""
    while size and (block := body.read(min(size, _BLOCK_BYTES))):
        size -= len(block)
