"""The errors that emulated operations answer with, and their codes in the protocols of AWS."""

from __future__ import annotations

from collections.abc import Iterable

# Bedrock's code -> S3's code and HTTP status for the same error ("Error responses", Amazon S3 API reference).
S3_CODES = {
    "AccessDeniedException": ("AccessDenied", 403),
    "ExpiredTokenException": ("ExpiredToken", 400),
    "InternalServerException": ("InternalError", 500),
    "ServiceUnavailableException": ("ServiceUnavailable", 503),
    "ThrottlingException": ("SlowDown", 503),
}
# The same for IAM and STS ("Common errors", IAM API reference).
QUERY_CODES = {
    "AccessDeniedException": ("AccessDenied", 403),
    "ExpiredTokenException": ("ExpiredToken", 403),
    "InternalServerException": ("InternalFailure", 500),
    "ServiceUnavailableException": ("ServiceUnavailable", 503),
    "ThrottlingException": ("Throttling", 400),
}
# Statuses of errors that every service may return, although no service model lists them.
COMMON_STATUSES = {"ExpiredTokenException": 403, "UnrecognizedClientException": 403}


class ApiError(Exception):
    """An error answer of the emulated service. The client gets it as botocore's exception for this code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ApiError:
    """Return a ValidationException with this message."""
    return ApiError("ValidationException", message)


def unsupported(names: Iterable[str], where: str = "") -> ApiError:
    """Return an error that lists parameters that this emulator does not support, although the service may."""
    return invalid(
        f"this emulator does not support {', '.join(names)}{where}. Leave that out, or test against the real service"
    )
