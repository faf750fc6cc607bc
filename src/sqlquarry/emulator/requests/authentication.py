"""Authenticate every request before a service sees it. Unsigned and malformed requests are refused.

Anybody who may create a training job can run code on this machine. So requests from web pages in a browser and from
other users of the machine must not reach the services. The emulator has no web pages of its own.
"""

from __future__ import annotations

import hashlib
import io
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from gzip import BadGzipFile
from typing import TYPE_CHECKING

from sqlquarry.emulator.requests.body import MAX_BODY_BYTES, MAX_UPLOAD_BYTES, CheckedBody, content_length
from sqlquarry.emulator.requests.refusals import RequestRefusedError, answer_refusal
from sqlquarry.emulator.requests.signature import UNSIGNED_PAYLOAD, AccessKey, Signature, read_signature
from sqlquarry.text import visible_logger

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_BLOCK_BYTES = 1 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_log = visible_logger(__name__)


def authenticate(
    application: WSGIApplication,
    *,
    hosts: Iterable[str],
    find_key: Callable[[str], AccessKey | None],
    account: str,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> WSGIApplication:
    """Return a wrapper of `application` that passes on authenticated requests only.

    Args:
        application: answers authenticated requests.
        hosts: accepted values of the Host header ("127.0.0.1:5000").
        find_key: returns the key with a given ID, or None if the key is unknown.
        account: AWS account that every request belongs to.
        now: returns the time.
    """
    served = frozenset(host.lower() for host in hosts)

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        answered = _CapturedAnswer(environ)
        try:
            _check_sender(environ, served)
            signature = read_signature(environ, find_key, now())
            body = _verified_body(environ, signature)
            environ["HTTP_X_MOTO_ACCOUNT_ID"] = account
            if signature.presigned:
                # moto finds the service of a request by this header. Without it, moto would guess from path and body.
                environ["HTTP_AUTHORIZATION"] = _authorization(signature)
            content = _content(application, answered, body)
        except RequestRefusedError as refusal:
            return answer_refusal(refusal, environ, start_response)
        start_response(answered.status, answered.headers)
        if connection := environ.get("werkzeug.socket"):
            connection.settimeout(None)  # the client may read slowly
        return content

    return respond


def _content(application: WSGIApplication, answered: _CapturedAnswer, body: CheckedBody) -> Iterable[bytes]:
    """Return the application's answer, or raise the refusal if the body proved to be invalid while it was read."""
    try:
        content = answered.content_of(application)
    except (ConnectionError, MemoryError):
        raise
    except Exception as error:
        if body.refusal is None and isinstance(error, OSError) and not isinstance(error, BadGzipFile):
            raise
        raise body.refusal or _unreadable(error) from error
    if body.refusal:  # a framework has turned the body's error into an answer of its own
        raise body.refusal
    return content


class _CapturedAnswer:
    """An application's answer, which is held back until the complete request has been checked."""

    def __init__(self, environ: WSGIEnvironment) -> None:
        self._environ = environ
        self.status = ""
        self.headers: list[tuple[str, str]] = []

    def content_of(self, application: WSGIApplication) -> Iterable[bytes]:
        """Call the application, store its status and headers without CORS headers, and return its content."""
        content = application(self._environ, self._start)
        types = [value.partition(";")[0] for name, value in self.headers if name.lower() == "content-type"]
        if self.status[:1] != "4" or types != ["text/html"] or self._environ["REQUEST_METHOD"] == "HEAD":
            return content
        text = b"".join(content)
        getattr(content, "close", lambda: None)()  # required by WSGI
        if text and text.lstrip()[:14].lower() != b"<!doctype html":
            return [text]  # moto labels most of its own errors as HTML too
        kind, message = ("denied", "Access Denied") if self.status[:3] == "403" else ("operation", "Unknown operation")
        raise RequestRefusedError(kind, message, status=self.status)

    def _start(self, status: str, headers: list[tuple[str, str]], *_: object) -> Callable[[bytes], object]:
        self.status = status
        self.headers = [field for field in headers if not field[0].lower().startswith("access-control-")]
        return _no_write


def _no_write(_: bytes) -> object:
    raise NotImplementedError("the application must return its content instead of writing it")


def _check_sender(environ: WSGIEnvironment, served: frozenset[str]) -> None:
    """Refuse requests from web pages, and requests to host names that somebody else has pointed to this machine."""
    if "HTTP_ORIGIN" in environ or any(name.startswith("HTTP_SEC_FETCH_") for name in environ):
        raise RequestRefusedError("denied", "This emulator does not answer requests from web pages.")
    if environ.get("HTTP_HOST", "").lower() not in served:
        raise RequestRefusedError(
            "denied",
            f"This emulator accepts only the hosts {' and '.join(sorted(served))}. Use path-style addresses for S3 "
            "buckets.",
        )
    target = environ["RAW_URI"]
    if not (target.startswith("/") and target.isascii()) or "#" in target:
        raise RequestRefusedError(
            "malformed", "The request target must be an ASCII path. Percent-encode all other characters."
        )


def _verified_body(environ: WSGIEnvironment, signature: Signature) -> CheckedBody:
    """Verify the signature, and replace the body by one that is checked while it is read."""
    length = content_length(environ)
    named = environ.get("HTTP_X_AMZ_CONTENT_SHA256", "")
    sha256 = named if _SHA256.fullmatch(named) else None
    is_upload = signature.service == "s3" and environ["REQUEST_METHOD"] == "PUT" and _has_key(environ["PATH_INFO"])
    limit = MAX_UPLOAD_BYTES if is_upload else MAX_BODY_BYTES
    if length is not None and length > limit:
        raise RequestRefusedError(
            "size", f"The body of the request has {length} bytes, but at most {limit} bytes are allowed."
        )
    body = CheckedBody(environ["wsgi.input"], length, limit=limit, sha256=sha256)
    if signature.service == "s3":
        if signature.presigned:
            named = named or UNSIGNED_PAYLOAD
        elif not (sha256 or named == UNSIGNED_PAYLOAD or named.startswith("STREAMING-")):
            raise RequestRefusedError(
                "incomplete", "x-amz-content-sha256 must be a SHA-256, UNSIGNED-PAYLOAD or a STREAMING-… value."
            )
    if is_upload:
        signature.verify(environ, named)
        environ["wsgi.input"] = io.BufferedReader(body, _BLOCK_BYTES)
        return body
    content = body.read_whole()
    computed = hashlib.sha256(content).hexdigest() if signature.service != "s3" and sha256 is None else named
    signature.verify(environ, computed)
    environ |= {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}
    environ.pop("HTTP_TRANSFER_ENCODING", None)
    environ.pop("wsgi.input_terminated", None)
    return body


def _has_key(path: str) -> bool:
    return bool(path.lstrip("/").partition("/")[2])


def _authorization(signature: Signature) -> str:
    return (
        f"AWS4-HMAC-SHA256 Credential={signature.key.id}/{signature.timestamp[:8]}/{signature.region}/"
        f"{signature.service}/aws4_request, SignedHeaders=host, Signature=in-the-query"
    )


def _unreadable(error: Exception) -> RequestRefusedError:
    """Turn an exception of moto into an error for the client, because moto does not check the form of requests."""
    if isinstance(error, RequestRefusedError):
        return error
    if isinstance(error, NotImplementedError):
        return RequestRefusedError("operation", f"This emulator does not support this operation ({error}).")
    _log.error("cannot parse a signed request", exc_info=error)
    return RequestRefusedError("malformed", f"The request cannot be parsed ({type(error).__name__}: {error}).")
