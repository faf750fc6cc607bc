"""What AWS's errors mean in every phase, and what to do about them, without repeating their secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple


class KnownError(NamedTuple):
    """What to do about an error.

    Args:
        code: AWS's code, or the class of an error that botocore raises itself.
        fragment: a part of the message in lower case; "" fits any message.
        advice: what to do.
    """

    code: str
    fragment: str
    advice: str


_S3_RIGHTS = "The caller needs s3:ListBucket, GetObject, PutObject and DeleteObject there."
_RENEW = "Renew the credentials (aws sso login, or a new session); what is done already is kept."
_OTHER_REGION = "The bucket is in another region: use a session of that region, or another bucket."

COMMON_ERRORS = (
    KnownError("AccessDenied", "not authorized to perform: iam:", "Somebody who may manage IAM must make the role."),
    KnownError("AccessDenied", "", _S3_RIGHTS),
    KnownError("403", "", _S3_RIGHTS),
    KnownError("NoSuchBucket", "", "Check the bucket's name, or create it."),
    KnownError("NoSuchUpload", "", "Another process finished or aborted this upload meanwhile. Run it again."),
    *(
        KnownError(code, "", _OTHER_REGION)
        for code in ("PermanentRedirect", "301", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException")
    ),
    *(KnownError(code, "", _RENEW) for code in ("ExpiredTokenException", "ExpiredToken", "RequestExpired")),
    *(
        KnownError(
            code, "", "The credentials are not valid (any more). Log in again, and check the clock of this machine."
        )
        for code in (
            *("UnrecognizedClientException", "InvalidClientTokenId", "InvalidAccessKeyId", "AuthFailure"),
            *("InvalidSignatureException", "SignatureDoesNotMatch", "RequestTimeTooSkewed", "InvalidToken"),
        )
    ),
    *(
        KnownError(code, "", "Log in to AWS (aws configure, aws sso login), or pass a session that has credentials.")
        for code in (
            "NoCredentialsError",
            "PartialCredentialsError",
            "TokenRetrievalError",
            "UnauthorizedSSOTokenError",
        )
    ),
    *(
        KnownError(code, "", "Check the network, the region and endpoint_url, then run it again.")
        for code in (
            *("EndpointConnectionError", "ConnectTimeoutError", "ConnectionClosedError", "ReadTimeoutError"),
            "ResponseStreamingError",
        )
    ),
)

_SECRETS = re.compile(
    r"(?P<key>X-Amz-(?:Signature|Credential|Security-Token)=|aws_secret_access_key\W+|aws_session_token\W+)[^\s&'\"]+"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    re.IGNORECASE,
)
# What S3 and STS append to signature errors: the request as they saw it.
_SIGNED_TEXT = re.compile(r"The (?:Canonical String|String-to-Sign)\b.*", re.DOTALL)


def error_code(error: Exception) -> str:
    """Return AWS's code of a botocore ClientError; the class's name of any other error."""
    # botocore's connection errors have a `response`, too, which is None.
    response: dict[str, Any] | None = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__


def says(error: Exception, code: str, fragment: str) -> bool:
    """Return whether an error has this code and message; case does not matter (a stream's codes begin small)."""
    return error_code(error).lower() == code.lower() and fragment in str(error).lower()


def described(
    error: Exception, doing: str, advice: str | None = None, *, known: Sequence[KnownError] = COMMON_ERRORS
) -> str:
    """Say what was being done, what AWS answered, and what to do next, without secrets.

    Secrets are taken out of `error` too, which tracebacks show as the cause.

    Args:
        error: botocore's.
        doing: what failed, "listing s3://bucket/prefix".
        advice: what to do; None looks it up.
        known: errors with their advice; the first that fits counts.
    """
    if advice is None:
        advice = next((one.advice for one in known if says(error, one.code, one.fragment)), "")
    said = _SIGNED_TEXT.sub("", _SECRETS.sub(lambda match: (match["key"] or "") + "***", str(error))).strip()
    error.args = (said,)
    return f"{doing} failed: {said.rstrip('.')}. {advice}".rstrip()


@contextmanager
def aws_errors(
    kind: Callable[[str], Exception], doing: str, more: str = "", *, known: Sequence[KnownError] = COMMON_ERRORS
) -> Iterator[None]:
    """Raise boto3's errors as errors of this library.

    Args:
        kind: makes the error of its message.
        doing: as in `described`.
        more: what follows the advice.
        known: errors with their advice; the first that fits counts.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        raise kind(f"{described(error, doing, known=known)} {more}".rstrip()) from error
