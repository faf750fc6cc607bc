"""Verify signatures of Version 4, and of Version 2 in presigned URLs of S3.

botocore's signers compute the canonical forms. By default, botocore presigns URLs for S3 with Version 2.
Sources: "AWS Signature Version 4 for API requests" (IAM user guide), "Authenticating Requests (AWS Signature Version
4)" and "Signing and authenticating REST requests" (Amazon S3).
"""

from __future__ import annotations

import base64
import hmac
import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, urlsplit

from sqlquarry.emulator.requests.refusals import RequestRefusedError

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

UNSIGNED_PAYLOAD = "UNSIGNED-PAYLOAD"
MAX_SKEW = timedelta(minutes=15)
_MAX_EXPIRES_S = 7 * 24 * 3600  # for presigned URLs
_MAX_QUERY_FIELDS = 1000
# Version 2 leaves these fields unsigned. They only filter lists, but other fields would change the operation.
_UNSIGNED_FIELDS = {"AWSAccessKeyId", "Signature", "Expires", "x-id", "list-type", "prefix", "delimiter", "marker"}
_UNSIGNED_FIELDS |= {"key-marker", "max-keys", "encoding-type", "continuation-token", "start-after", "fetch-owner"}
_ALGORITHM = "AWS4-HMAC-SHA256"
_CREDENTIAL = r"(?P<key>[\w-]{1,128})/(?P<date>\d{8})/(?P<region>[a-z0-9-]{1,64})/(?P<service>[a-z0-9.-]{1,64})"
_SIGNATURE = r"(?P<signature>[0-9a-f]{64})"
_SIGNED_HEADERS = r"(?P<headers>[a-z0-9_.;!#$%&'*+^`|~-]{1,8192})"
_AUTHORIZATION = re.compile(
    rf"{_ALGORITHM} +Credential={_CREDENTIAL}/aws4_request, *SignedHeaders={_SIGNED_HEADERS}, *Signature={_SIGNATURE}"
)
_QUERY_FIELDS = re.compile(rf"{_CREDENTIAL}/aws4_request\n{_SIGNED_HEADERS}\n{_SIGNATURE}")
_TIMESTAMP = "%Y%m%dT%H%M%SZ"


@dataclass(frozen=True, slots=True)
class AccessKey:
    """A key for signing requests. Only its `id` may be shown.

    Args:
        id: ID of the key.
        secret: secret that signs requests.
        token: session token of temporary credentials.
    """

    id: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)

    @classmethod
    def random(cls) -> AccessKey:
        """Create a random key with 80 random bits in its ID and 256 in its secret."""
        return cls("AKIA" + base64.b32encode(secrets.token_bytes(10)).decode(), secrets.token_urlsafe(32))


@dataclass(frozen=True, slots=True)
class Signature:
    """The signature of a request and the data needed to verify it.

    Args:
        key: key that the request names.
        service: service that the request is signed for.
        region: region that the request is signed for.
        timestamp: time of signing ("20261130T101112Z"), or for Version 2 the time of expiry in Unix seconds.
        headers: names of the signed headers in lower case.
        value: signature itself.
        presigned: whether the signature is in the URL. Then the payload is not signed.
        version: 4 or 2.
    """

    key: AccessKey
    service: str
    region: str
    timestamp: str
    headers: tuple[str, ...]
    value: str
    presigned: bool = False
    version: int = 4

    def verify(self, environ: WSGIEnvironment, payload_hash: str) -> None:
        """Check that the signature matches the request.

        Args:
            environ: WSGI environment of the request.
            payload_hash: hash of the body in the canonical form: a SHA-256 (hex), or S3's placeholder for no hash.

        Raises:
            RequestRefusedError: another request was signed, or another secret was used.
        """
        expected = _version_2(self, environ) if self.version == 2 else _version_4(self, environ, payload_hash)
        if not hmac.compare_digest(expected.encode(), self.value.encode()):
            raise RequestRefusedError(
                "signature",
                "The signature does not match the request. Check the secret access key and the signing method.",
            )


def read_signature(environ: WSGIEnvironment, find_key: Callable[[str], AccessKey | None], now: datetime) -> Signature:
    """Parse the signature of a request from its Authorization header or its query, without verifying it.

    Raises:
        RequestRefusedError: the signature is missing, incomplete or expired, or its key or token is unknown.
    """
    header = environ.get("HTTP_AUTHORIZATION")
    query = _query(environ)
    if header and any(name in query for name in ("X-Amz-Signature", "Signature")):
        raise RequestRefusedError("incomplete", "Use either an Authorization header or a signed query, not both.")
    if header:
        signature = _from_header(environ, header, find_key, now)
    elif "X-Amz-Signature" in query:
        signature = _from_query(query, find_key, now)
    elif "Signature" in query:
        return _from_query_version_2(query, find_key, now)
    else:
        raise RequestRefusedError(
            "unsigned",
            "The request is not signed. Sign it with the access key that this emulator created at its start.",
        )
    if "host" not in signature.headers:
        raise RequestRefusedError("incomplete", "SignedHeaders must include host.")
    signed = {_environ_name(name) for name in signature.headers}
    for name in environ:
        if name.startswith("HTTP_X_AMZ_") and name not in signed:
            raise RequestRefusedError("incomplete", "The request has x-amz-* headers that are not signed.")
    return signature


def _from_header(
    environ: WSGIEnvironment, header: str, find_key: Callable[[str], AccessKey | None], now: datetime
) -> Signature:
    parts = _AUTHORIZATION.fullmatch(header)
    if parts is None:
        raise RequestRefusedError(
            "incomplete", f"The Authorization header must be {_ALGORITHM} with a complete credential scope."
        )
    timestamp = environ.get("HTTP_X_AMZ_DATE") or _basic_format(environ.get("HTTP_DATE", ""))
    if abs(_time(timestamp) - now) > MAX_SKEW:
        raise RequestRefusedError("time", "The difference between the request time and the server's time is too large.")
    return _signature(parts, timestamp, find_key, environ.get("HTTP_X_AMZ_SECURITY_TOKEN"))


def _from_query(query: dict[str, str], find_key: Callable[[str], AccessKey | None], now: datetime) -> Signature:
    names = ("X-Amz-Credential", "X-Amz-SignedHeaders", "X-Amz-Signature")
    parts = _QUERY_FIELDS.fullmatch("\n".join(query.get(name, "") for name in names))
    expires = query.get("X-Amz-Expires", "")
    if (
        parts is None
        or query.get("X-Amz-Algorithm") != _ALGORITHM
        or not (expires.isascii() and expires.isdecimal() and len(expires) <= 6 and int(expires) <= _MAX_EXPIRES_S)
    ):
        raise RequestRefusedError(
            "incomplete",
            "The query must contain X-Amz-Algorithm, X-Amz-Credential, X-Amz-Date, X-Amz-Expires and "
            "X-Amz-SignedHeaders.",
        )
    timestamp = query.get("X-Amz-Date", "")
    signed_at = _time(timestamp)
    if not signed_at - MAX_SKEW <= now <= signed_at + timedelta(seconds=int(expires)):
        raise RequestRefusedError("expired", "Request has expired")
    return _signature(parts, timestamp, find_key, query.get("X-Amz-Security-Token"), presigned=True)


def _from_query_version_2(
    query: dict[str, str], find_key: Callable[[str], AccessKey | None], now: datetime
) -> Signature:
    expires = query.get("Expires", "")
    if not (expires.isascii() and expires.isdecimal() and len(expires) <= 12):
        raise RequestRefusedError("incomplete", "The query must contain AWSAccessKeyId, Signature and Expires.")
    if int(expires) < now.timestamp():
        raise RequestRefusedError("expired", "Request has expired")
    from botocore.auth import HmacV1Auth

    unsigned = {name for name in query if not _is_header_of_version_2(name.lower())}
    if unsigned - _UNSIGNED_FIELDS - set(HmacV1Auth.QSAOfInterest):
        raise RequestRefusedError("incomplete", "The query has fields that a signature of Version 2 does not cover.")
    key = _key(query.get("AWSAccessKeyId", ""), find_key, query.get("x-amz-security-token"))
    return Signature(key, "s3", "us-east-1", expires, (), query["Signature"], presigned=True, version=2)


def _signature(
    parts: re.Match[str],
    timestamp: str,
    find_key: Callable[[str], AccessKey | None],
    token: str | None,
    *,
    presigned: bool = False,
) -> Signature:
    if parts["date"] != timestamp[:8]:
        raise RequestRefusedError("incomplete", "The credential scope and the request have different dates.")
    key = _key(parts["key"], find_key, token)
    headers = tuple(parts["headers"].split(";"))
    return Signature(
        key, parts["service"], parts["region"], timestamp, headers, parts["signature"], presigned=presigned
    )


def _key(name: str, find_key: Callable[[str], AccessKey | None], token: str | None) -> AccessKey:
    key = find_key(name)
    if key is None:
        raise RequestRefusedError(
            "key", "The access key of the request is unknown. This emulator creates a new key each time it starts."
        )
    if not hmac.compare_digest((key.token or "").encode(), (token or "").encode()):
        raise RequestRefusedError("token", "The security token of the request does not belong to its access key.")
    return key


def _version_4(signature: Signature, environ: WSGIEnvironment, payload_hash: str) -> str:
    from botocore.auth import S3SigV4Auth, SigV4Auth
    from botocore.awsrequest import AWSRequest
    from botocore.compat import HTTPHeaders
    from botocore.credentials import Credentials

    path, _, query = environ["RAW_URI"].partition("?")
    kept = "&".join(pair for pair in query.split("&") if not pair.startswith("X-Amz-Signature="))
    headers = HTTPHeaders()
    for name in signature.headers:
        # WSGI decodes headers as Latin-1, but SDKs sign UTF-8.
        headers[name] = (
            str(environ.get(_environ_name(name), "")).encode("latin-1", "replace").decode("utf-8", "replace")
        )
    signer: Any = (S3SigV4Auth if signature.service == "s3" else SigV4Auth)(
        Credentials(signature.key.id, signature.key.secret), signature.service, signature.region
    )
    # Use exactly the headers that the client signed. botocore itself would leave some of them out.
    signer.headers_to_sign = lambda _: headers
    request = AWSRequest(
        method=environ["REQUEST_METHOD"],
        url=f"http://{environ['HTTP_HOST']}{path}?{kept}",
        headers={"X-Amz-Content-SHA256": payload_hash},
    )
    request.context["timestamp"] = signature.timestamp
    return str(signer.signature(signer.string_to_sign(request, signer.canonical_request(request)), request))


def _version_2(signature: Signature, environ: WSGIEnvironment) -> str:
    from botocore.auth import HmacV1QueryAuth
    from botocore.compat import HTTPHeaders
    from botocore.credentials import Credentials

    # botocore moves headers into the URL. If the client also sends a header, the sent value is used.
    fields = {name.lower(): value for name, value in _query(environ).items()}
    fields |= {
        name.removeprefix("HTTP_").replace("_", "-").lower(): value
        for name, value in environ.items()
        if name.startswith(("HTTP_X_AMZ_", "HTTP_CONTENT_MD5", "CONTENT_TYPE"))
    }
    headers = HTTPHeaders()
    for name, value in fields.items():
        if _is_header_of_version_2(name):
            headers[name] = value
    signer: Any = HmacV1QueryAuth(Credentials(signature.key.id, signature.key.secret))
    signer._get_date = lambda: signature.timestamp  # noqa: SLF001 - the signer would use the current time instead of the time of expiry
    return str(signer.get_signature(environ["REQUEST_METHOD"], urlsplit(environ["RAW_URI"]), headers))


def _is_header_of_version_2(name: str) -> bool:
    """Return whether a header with this name (in lower case) is signed. botocore may have moved it into the query."""
    return name.startswith("x-amz-") or name in ("content-type", "content-md5")


def _query(environ: WSGIEnvironment) -> dict[str, str]:
    try:
        pairs = parse_qsl(environ["QUERY_STRING"], keep_blank_values=True, max_num_fields=_MAX_QUERY_FIELDS)
    except ValueError as error:
        raise RequestRefusedError("malformed", f"The query has more than {_MAX_QUERY_FIELDS} fields.") from error
    signing = [name for name, _ in pairs if name.startswith("X-Amz-") or name in ("AWSAccessKeyId", "Signature")]
    if len(signing) > len(set(signing)):
        raise RequestRefusedError("incomplete", "The query repeats a field of its signature.")
    return dict(pairs)


def _environ_name(header: str) -> str:
    name = header.upper().replace("-", "_")
    return name if name in ("CONTENT_TYPE", "CONTENT_LENGTH") else f"HTTP_{name}"


def _time(timestamp: str) -> datetime:
    try:
        return datetime.strptime(timestamp, _TIMESTAMP).replace(tzinfo=UTC)
    except ValueError as error:
        raise RequestRefusedError(
            "incomplete", "The request must contain its time as X-Amz-Date in the form 20261130T101112Z."
        ) from error


def _basic_format(date: str) -> str:
    """Convert a Date header, which may replace X-Amz-Date, to the form of X-Amz-Date."""
    from email.utils import parsedate_to_datetime

    try:
        return parsedate_to_datetime(date).astimezone(UTC).strftime(_TIMESTAMP)
    except (TypeError, ValueError, OverflowError):
        return date
