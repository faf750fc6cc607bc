"""The errors that emulated operations answer with, and what the protocols of AWS call them."""

from __future__ import annotations

from collections.abc import Iterable

# What S3 calls Bedrock's errors, and with which HTTP status ("Error responses", Amazon S3 API reference).
S3_CODES = {
    "AccessDeniedException": ("AccessDenied", 403),
    "ExpiredTokenException": ("ExpiredToken", 400),
    "InternalServerException": ("InternalError", 500),
    "ServiceUnavailableException": ("ServiceUnavailable", 503),
    "ThrottlingException": ("SlowDown", 503),
}
# The same of IAM and STS ("Common errors", IAM API reference).
QUERY_CODES = {
    "AccessDeniedException": ("AccessDenied", 403),
    "ExpiredTokenException": ("ExpiredToken", 403),
    "InternalServerException": ("InternalFailure", 500),
    "ServiceUnavailableException": ("ServiceUnavailable", 503),
    "ThrottlingException": ("Throttling", 400),
}
# Errors that every service may answer with, although none of their models lists them.
COMMON_STATUSES = {"ExpiredTokenException": 403, "UnrecognizedClientException": 403}


class ApiError(Exception):
    """An error answer of the emulated service; it reaches the client as botocore's exception of that code."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message


def invalid(message: str) -> ApiError:
    """Return the ValidationException with this message."""
    return ApiError("ValidationException", message)


def unsupported(names: Iterable[str], where: str = "") -> ApiError:
    """Return the refusal of parameters that the service may know and this emulator does not, by their names."""
    return invalid(
        f"this emulator does not support {', '.join(names)}{where}. Leave it out here, or ask the service itself"
    )
