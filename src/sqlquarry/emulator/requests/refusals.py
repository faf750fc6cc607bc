"""Errors for requests that are refused before they reach a service, in the codes and format of the requested service.

Codes: "Error responses" (Amazon S3 API reference), "Common errors" (API references of IAM and Bedrock).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, NamedTuple
from xml.sax.saxutils import escape

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment


class _Codes(NamedTuple):
    status: str
    s3: str
    query: str  # for the query protocol of IAM and STS
    json: str


_CODES = {
    "denied": _Codes("403 Forbidden", "AccessDenied", "AccessDenied", "AccessDeniedException"),
    "unsigned": _Codes(
        "403 Forbidden", "AccessDenied", "MissingAuthenticationToken", "MissingAuthenticationTokenException"
    ),
    "incomplete": _Codes(
        "403 Forbidden", "AuthorizationHeaderMalformed", "IncompleteSignature", "IncompleteSignatureException"
    ),
    "key": _Codes("403 Forbidden", "InvalidAccessKeyId", "InvalidClientTokenId", "UnrecognizedClientException"),
    "token": _Codes("403 Forbidden", "InvalidToken", "InvalidClientTokenId", "UnrecognizedClientException"),
    "signature": _Codes("403 Forbidden", "SignatureDoesNotMatch", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "time": _Codes("403 Forbidden", "RequestTimeTooSkewed", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "expired": _Codes("403 Forbidden", "AccessDenied", "SignatureDoesNotMatch", "InvalidSignatureException"),
    "payload": _Codes(
        "400 Bad Request", "XAmzContentSHA256Mismatch", "SignatureDoesNotMatch", "InvalidSignatureException"
    ),
    "body": _Codes("400 Bad Request", "IncompleteBody", "MalformedInput", "SerializationException"),
    "timeout": _Codes("400 Bad Request", "RequestTimeout", "RequestTimeout", "RequestTimeoutException"),
    "size": _Codes(
        "413 Request Entity Too Large", "EntityTooLarge", "RequestEntityTooLarge", "RequestEntityTooLargeException"
    ),
    "malformed": _Codes("400 Bad Request", "InvalidRequest", "MalformedInput", "SerializationException"),
    "operation": _Codes("400 Bad Request", "NotImplemented", "InvalidAction", "UnknownOperationException"),
}
_SCOPE = re.compile(r"Credential=[^/,\s]+/\d+/[^/,\s]*/(?P<service>[^/,\s]+)/aws4_request")


class RequestRefusedError(Exception):
    """A request is refused before it reaches a service.

    Args:
        kind: key in the table of codes.
        message: error message for the client.
        status: HTTP status. None uses the status of the kind.
    """

    def __init__(self, kind: str, message: str, *, status: str | None = None) -> None:
        super().__init__(message)
        self.codes = _CODES[kind]
        self.message = message
        self.status = status or self.codes.status


def answer_refusal(
    refusal: RequestRefusedError, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterable[bytes]:
    """Answer a request with an error in the protocol of the requested service."""
    protocol = _protocol(environ)
    code, message = getattr(refusal.codes, protocol), refusal.message
    fields = []
    if protocol == "json":
        fields += [("Content-Type", "application/x-amz-json-1.1"), ("x-amzn-ErrorType", code)]
        body = json.dumps({"__type": code, "message": message})
    else:
        fields += [("Content-Type", "application/xml")]
        body = f"<Code>{escape(code)}</Code><Message>{escape(message)}</Message>"
        body = f"<Error>{body}</Error>" if protocol == "s3" else f"<Error><Type>Sender</Type>{body}</Error>"
        body = body if protocol == "s3" else f"<ErrorResponse>{body}</ErrorResponse>"
    content = body.encode("utf-8", "backslashreplace")
    start_response(refusal.status, [*fields, ("Content-Length", str(len(content)))])
    return [] if environ["REQUEST_METHOD"] == "HEAD" else [content]


def _protocol(environ: WSGIEnvironment) -> str:
    scope = _SCOPE.search(environ.get("HTTP_AUTHORIZATION", ""))
    service = scope["service"] if scope else None
    if service == "s3":
        return "s3"
    content_type = environ.get("CONTENT_TYPE", "").lower()
    if service in ("iam", "sts") or content_type.startswith("application/x-www-form-urlencoded"):
        return "query"
    return "json" if service or "json" in content_type or "HTTP_X_AMZ_TARGET" in environ else "s3"
