"""Turn AWS's errors into errors of this library that say what to do, without repeating secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlquarry.aws.known_errors import KNOWN_ERRORS, Service
from sqlquarry.credentials import redacted
from sqlquarry.errors import BedrockError

# The next try may succeed. S3's error responses: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT_CODES = (
    *("InternalError", "InternalServerException", "ServiceUnavailable", "ServiceUnavailableException", "SlowDown"),
    *("RequestTimeout", "ThrottlingException", "BadDigest", "500", "502", "503", "504"),
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
    response = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__


def says(error: Exception, code: str, fragment: str) -> bool:
    """Return whether an error has this code and message; case does not matter (a stream's codes begin small)."""
    return error_code(error).lower() == code.lower() and fragment in str(error).lower()


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed on the next try: a broken connection, or a service in trouble."""
    from botocore.exceptions import ConnectionError as NoConnectionError
    from botocore.exceptions import HTTPClientError

    return isinstance(error, NoConnectionError | HTTPClientError) or error_code(error) in _TRANSIENT_CODES


def described(error: Exception, doing: str, advice: str | None = None, *, service: Service | None = None) -> str:
    """Say what was being done, what AWS answered, and what to do next, without secrets.

    Secrets are taken out of `error` too, which tracebacks show as the cause.

    Args:
        error: botocore's.
        doing: what failed, "listing s3://bucket/prefix".
        advice: what to do; None looks it up in `KNOWN_ERRORS`.
        service: the service that the request was made for; None leaves out advice for one service.
    """
    if advice is None:
        advice = _known_advice(error, service)
    text = _SECRETS.sub(lambda match: (match["key"] or "") + "***", _SIGNED_TEXT.sub("", str(error)))
    text = str(redacted(text)).strip()
    error.args = (text,)
    return f"{doing} failed: {text.rstrip('.')}. {advice}".rstrip()


def _known_advice(error: Exception, service: Service | None) -> str:
    for known in KNOWN_ERRORS:
        if known.service in (None, service) and any(says(error, code, known.fragment) for code in known.codes):
            return known.advice
    return ""


def bedrock_error(error: Exception, doing: str, advice: str | None = None) -> BedrockError:
    """Return the error to raise for a failed request to Bedrock, or to S3 for it; arguments as in `described`."""
    return BedrockError(described(error, doing, advice, service="bedrock"))


@contextmanager
def aws_errors(
    kind: Callable[[str], Exception],
    doing: str,
    more: str = "",
    *,
    advice: Mapping[str, str] | None = None,
    service: Service | None = None,
) -> Iterator[None]:
    """Raise boto3's errors as errors of this library.

    Args:
        kind: makes the error of its message.
        doing: as in `described`.
        more: what follows the advice.
        advice: error code -> what to do, in place of the advice in `KNOWN_ERRORS`.
        service: as in `described`.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        told = described(error, doing, (advice or {}).get(error_code(error)), service=service)
        raise kind(f"{told} {more}".rstrip()) from error
