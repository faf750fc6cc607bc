"""The HTTP server. Every request passes the checks in `requests` before moto finds its service."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from hmac import compare_digest
from http.client import HTTP_PORT
from typing import TYPE_CHECKING

from sqlquarry.emulator.faults import Faults
from sqlquarry.emulator.moto.s3_objects import receive_parts
from sqlquarry.emulator.moto.state import bucket_owner, bucket_region, made_key
from sqlquarry.emulator.requests.authentication import authenticate
from sqlquarry.emulator.requests.broken_connections import cut_answers
from sqlquarry.emulator.requests.s3_rules import apply_s3_rules
from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.errors import EmulatorError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

HOST = "127.0.0.1"
_CLIENT_TIMEOUT_S = 60.0


@contextmanager
def serve(port: int, faults: Faults, *, account: str, key: AccessKey) -> Iterator[str]:
    """Serve moto on loopback until the context ends, and yield the URL.

    Args:
        port: port to listen on. 0 selects a free port.
        faults: faults to apply.
        account: AWS account that every request belongs to.
        key: key that requests must be signed with. Keys that moto's IAM and STS create later are also accepted.

    Raises:
        EmulatorError: the port is in use.
    """
    try:
        listener = socket.create_server((HOST, port), backlog=128)
    except OSError as error:
        raise EmulatorError(
            f"cannot listen on port {port} of {HOST} ({error}). Use port=0 to select a free port."
        ) from error
    with listener, _quiet("werkzeug"):
        server = _make_server(listener, faults, account=account, key=key)
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="local-aws", daemon=True
        )
        thread.start()
        try:
            yield f"http://{HOST}:{listener.getsockname()[1]}"
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Limit a logger to warnings and errors."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        log.setLevel(level)


def _make_server(listener: socket.socket, faults: Faults, *, account: str, key: AccessKey) -> BaseWSGIServer:
    """Create moto's server on a socket that already listens. moto's own start would hang if the port is in use."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug import serving

    host, port = listener.getsockname()
    application = receive_parts(DomainDispatcherApplication(create_backend_app), account)
    application = apply_s3_rules(application, faults, partial(bucket_region, account=account), bucket_owner)
    application = cut_answers(application)
    application = authenticate(
        application,
        hosts=[name if port == HTTP_PORT else f"{name}:{port}" for name in (host, "localhost")],
        find_key=lambda name: key if compare_digest(name.encode(), key.id.encode()) else made_key(name, account),
        account=account,
    )
    handler = type(
        "Handler",
        (MotoRequestHandler,),
        {
            "timeout": _CLIENT_TIMEOUT_S,  # limits the wait for a client that sends only half a request
            # http.server itself answers requests that are not HTTP, in this format.
            "error_content_type": "application/xml",
            "error_message_format": "<Error><Code>%(code)d</Code><Message>%(message)s</Message></Error>",
        },
    )
    return serving.make_server(host, port, application, threaded=True, request_handler=handler, fd=listener.fileno())
