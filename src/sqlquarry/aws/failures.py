"""Turn AWS errors into errors of this library that say what to do and contain no secrets."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from sqlquarry.aws.known_errors import KNOWN_ERRORS, Service
from sqlquarry.credentials import redacted
from sqlquarry.errors import BedrockError

# After these errors, a later attempt may succeed.
# Source for S3: docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_TRANSIENT_CODES = (
    *("InternalError", "InternalServerException", "ServiceUnavailable", "ServiceUnavailableException", "SlowDown"),
    *("RequestTimeout", "ThrottlingException", "BadDigest", "500", "502", "503", "504"),
)
_SECRETS = re.compile(
    r"(?P<key>X-Amz-(?:Signature|Credential|Security-Token)=|aws_secret_access_key\W+|aws_session_token\W+)[^\s&'\"]+"
    r"|\b(?:AKIA|ASIA)[A-Z0-9]{16}\b",
    re.IGNORECASE,
)
# S3 and STS append the request as they received it to signature errors.
_SIGNED_TEXT = re.compile(r"The (?:Canonical String|String-to-Sign)\b.*", re.DOTALL)


def error_code(error: Exception) -> str:
    """Return the AWS code of a botocore ClientError, or the class name of any other error."""
    # botocore's connection errors also have a `response`, which is None.
    response = getattr(error, "response", None)
    return str(response["Error"]["Code"]) if response else type(error).__name__


def says(error: Exception, code: str, fragment: str) -> bool:
    """Return whether an error has this code and its message contains `fragment`.

    The case of the code does not matter, because codes in streams begin with a small letter.
    """
    return error_code(error).lower() == code.lower() and fragment in str(error).lower()


def is_transient(error: Exception) -> bool:
    """Return whether the same request may succeed later, because the connection broke or the service has a problem."""
    from botocore.exceptions import ConnectionError as NoConnectionError
    from botocore.exceptions import HTTPClientError

    return isinstance(error, NoConnectionError | HTTPClientError) or error_code(error) in _TRANSIENT_CODES


def described(error: Exception, doing: str, advice: str | None = None, *, service: Service | None = None) -> str:
    """Return a message that says what failed, what AWS answered and what to do next, without secrets.

    Secrets are also removed from `error` itself, because tracebacks show it as the cause.

    Args:
        error: error raised by botocore.
        doing: what failed, for example "listing s3://bucket/prefix".
        advice: what to do. None looks it up in `KNOWN_ERRORS`.
        service: service that the request was made for. None skips advice that is specific to one service.
    """
    if advice is None:
        advice = _known_advice(error, service)
    text = _SECRETS.sub(lambda match: (match["key"] or "") + "***", _SIGNED_TEXT.sub("", str(error)))
    text = str(redacted(text)).strip()
    error.args = (text,)
    return f"{doing} failed: {text.rstrip('.')}. {advice}".rstrip()


def _known_advice(error: Exception, service: Service | None) -> str:
    for known in KNOWN_ERRORS:
        fragments = known.fragments or ("",)
        if known.service in (None, service) and any(
            says(error, code, fragment) for code in known.codes for fragment in fragments
        ):
            return known.advice
    return ""


def bedrock_error(error: Exception, doing: str, advice: str | None = None) -> BedrockError:
    """Return the error to raise if a request to Bedrock, or to S3 on its behalf, fails. Arguments: see `described`."""
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
        kind: creates an error from a message.
        doing: as in `described`.
        more: text to add after the advice.
        advice: error code -> advice that replaces the advice in `KNOWN_ERRORS`.
        service: as in `described`.
    """
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except (Boto3Error, BotoCoreError, ClientError) as error:
        message = described(error, doing, (advice or {}).get(error_code(error)), service=service)
        raise kind(f"{message} {more}".rstrip()) from error
