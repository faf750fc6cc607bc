"""Checks of S3 requests before moto answers: faults, and the region and owner of the bucket.

Requests of other services pass unchanged. Source of names, codes and redirects: "Error responses" (Amazon S3 API
reference).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import parse_qs, unquote
from xml.sax.saxutils import escape

from sqlquarry.emulator.faults import AnswerReset, Faults, UploadReset, is_named
from sqlquarry.emulator.requests.broken_connections import CUT_AFTER, break_connection, discard
from sqlquarry.emulator.requests.errors import S3_CODES

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_SIGNED_FOR = re.compile(r"Credential=[^/,]+/\d+/(?P<region>[^/]+)/s3/")
_REASONS = {301: "Moved Permanently", 400: "Bad Request", 403: "Forbidden", 500: "Internal Server Error"}
# Method, required query field, whether there is a key, operation. The first row that matches is used.
_OPERATIONS = (
    ("PUT", "uploadId", True, "UploadPart"),
    ("POST", "uploadId", True, "CompleteMultipartUpload"),
    ("DELETE", "uploadId", True, "AbortMultipartUpload"),
    ("GET", "uploadId", True, "ListParts"),
    ("POST", "uploads", True, "CreateMultipartUpload"),
    ("GET", "uploads", False, "ListMultipartUploads"),
    ("GET", "location", False, "GetBucketLocation"),
    ("GET", "encryption", False, "GetBucketEncryption"),
    ("GET", "list-type", False, "ListObjectsV2"),
    ("POST", "delete", False, "DeleteObjects"),
    ("GET", "", True, "GetObject"),
    ("HEAD", "", True, "HeadObject"),
    ("PUT", "", True, "PutObject"),
    ("DELETE", "", True, "DeleteObject"),
    ("GET", "", False, "ListObjects"),
    ("HEAD", "", False, "HeadBucket"),
    ("PUT", "", False, "CreateBucket"),
    ("DELETE", "", False, "DeleteBucket"),
)


class _S3Request(NamedTuple):
    operation: str
    bucket: str
    key: str
    region: str  # the region that the request is signed for


def apply_s3_rules(
    application: WSGIApplication,
    faults: Faults,
    bucket_region: Callable[[str], str | None],
    bucket_owner: Callable[[str], str | None],
) -> WSGIApplication:
    """Return a wrapper of `application` that applies S3's rules first.

    Args:
        application: answers every request that is not refused.
        faults: faults to apply.
        bucket_region: returns the region of a bucket, or None if the bucket does not exist.
        bucket_owner: returns the account that owns a bucket, or None if the bucket does not exist.
    """

    def respond(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        request = _s3_request(environ)
        if request is None:
            return application(environ, start_response)
        if request.operation in ("PutObject", "UploadPart"):
            _break_upload(environ, faults, request.key)
        if refusal := faults.refusal(request.operation, request.key):
            code, status = S3_CODES.get(refusal.code, (refusal.code, 400))
            return _error(environ, start_response, code, refusal.message, status=status)
        region = bucket_region(request.bucket)
        if region not in (None, request.region):
            return _redirect(environ, start_response, str(region))
        if _expects_another_owner(environ, request.bucket, bucket_owner):
            return _error(environ, start_response, "AccessDenied", "Access Denied", status=403)
        if cut := faults.take(AnswerReset, lambda fault: _concerns(fault, request)):
            environ[CUT_AFTER] = cut.after_bytes
        return application(environ, start_response)

    return respond


def _s3_request(environ: WSGIEnvironment) -> _S3Request | None:
    query = parse_qs(environ["QUERY_STRING"], keep_blank_values=True)
    credential = "".join(query.get("X-Amz-Credential", []))
    signed = _SIGNED_FOR.search(environ.get("HTTP_AUTHORIZATION") or f"Credential={credential}")
    bucket, _, key = environ["PATH_INFO"].lstrip("/").partition("/")
    if not signed:
        return None
    method = environ["REQUEST_METHOD"]
    fitting = (
        name
        for of, needs, has_key, name in _OPERATIONS
        if of == method and has_key == bool(key) and (not needs or needs in query)
    )
    return _S3Request(next(fitting, method) if bucket else "ListBuckets", bucket, key, signed["region"])


def _expects_another_owner(environ: WSGIEnvironment, bucket: str, owner: Callable[[str], str | None]) -> bool:
    """Return whether the bucket, or the source of a copy, has another owner than the request expects."""
    source = unquote(environ.get("HTTP_X_AMZ_COPY_SOURCE", "")).lstrip("/").partition("/")[0]
    query = parse_qs(environ["QUERY_STRING"])  # a presigned URL contains the expected owner in its query
    expected = environ.get("HTTP_X_AMZ_EXPECTED_BUCKET_OWNER") or "".join(query.get("x-amz-expected-bucket-owner", []))
    named = ((bucket, expected), (source, environ.get("HTTP_X_AMZ_SOURCE_EXPECTED_BUCKET_OWNER")))
    return any(wanted and owner(name) not in (None, wanted) for name, wanted in named)


def _concerns(fault: AnswerReset, request: _S3Request) -> bool:
    return is_named(request.operation, fault.operation) and fnmatchcase(request.key, fault.key)


def _break_upload(environ: WSGIEnvironment, faults: Faults, key: str) -> None:
    size = int(environ.get("CONTENT_LENGTH") or 0)
    fault = faults.take(UploadReset, lambda fault: fault.after_bytes < size and fnmatchcase(key, fault.key))
    if fault:
        discard(environ["wsgi.input"], fault.after_bytes)
        break_connection(environ)


def _redirect(environ: WSGIEnvironment, start_response: StartResponse, region: str) -> Iterable[bytes]:
    message = (
        "The bucket you are attempting to access must be addressed using the specified endpoint. Please send all "
        "future requests to this endpoint."
    )
    header = ("x-amz-bucket-region", region)
    return _error(environ, start_response, "PermanentRedirect", message, status=301, headers=[header])


def _error(
    environ: WSGIEnvironment,
    start_response: StartResponse,
    code: str,
    message: str,
    *,
    status: int,
    headers: Iterable[tuple[str, str]] = (),
) -> Iterable[bytes]:
    # Read the complete request. Otherwise, the client gets RST instead of the answer.
    discard(environ["wsgi.input"], int(environ.get("CONTENT_LENGTH") or 0))
    body = f"<Error><Code>{escape(code)}</Code><Message>{escape(message)}</Message></Error>".encode()
    fields = [("Content-Type", "application/xml"), ("Content-Length", str(len(body))), *headers]
    start_response(f"{status} {_REASONS.get(status, 'Error')}", fields)
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [body]
