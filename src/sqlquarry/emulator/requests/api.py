"""How an emulated operation says no, and the generic checks that AWS makes before any operation runs."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from functools import cache
from typing import Any

from sqlquarry.errors import MetadataError
from sqlquarry.files.metadata import parse_json

# Of an operation, in the types of botocore's service model.
Parameters = dict[str, Any]

# In an answer: the ApiError that its event stream ends with.
STREAM_ERROR = "_stream_error"

# What S3 calls Bedrock's errors, and with which HTTP status ("Error responses", Amazon S3 API reference).
S3_WORDS = {
    "AccessDeniedException": ("AccessDenied", 403),
    "ExpiredTokenException": ("ExpiredToken", 400),
    "InternalServerException": ("InternalError", 500),
    "ServiceUnavailableException": ("ServiceUnavailable", 503),
    "ThrottlingException": ("SlowDown", 503),
}
# The same of IAM and STS ("Common errors", IAM API reference).
QUERY_WORDS = {
    "AccessDeniedException": ("AccessDenied", 403),
    "ExpiredTokenException": ("ExpiredToken", 403),
    "InternalServerException": ("InternalFailure", 500),
    "ServiceUnavailableException": ("ServiceUnavailable", 503),
    "ThrottlingException": ("Throttling", 400),
}
# Errors of every service, which none of them models.
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
    """Return the refusal of what the service may know and this emulator does not, by its names."""
    return invalid(
        f"this emulator does not support {', '.join(names)}{where}. Leave it out here, or ask the service itself"
    )


def check_types(operation: str, parameters: Any, *, service: str) -> None:
    """Check that required members are there and that all have the types of botocore's service model.

    botocore does so itself before it sends; other clients may not.

    Raises:
        ApiError: ValidationException that names every wrong member.
    """
    from botocore.validate import ParamValidator

    shape = _input_shape(service, operation)
    report = ParamValidator().validate(parameters, shape) if shape else None
    if report and report.has_errors():
        raise ApiError("ValidationException", report.generate_report())


def json_members(operation: str, body: bytes | str, *, service: str) -> dict[str, Any]:
    """Return the members of an operation as its body holds them: moto passes over unknown ones, and converts types.

    Members that are null are left out, as the service does. A body that is one member (InvokeModel's) has none.

    Raises:
        ApiError: ValidationException where the body is no JSON object.
    """
    shape = _input_shape(service, operation)
    if not body or shape is None or "payload" in shape.serialization:
        return {}
    try:
        content = parse_json(body, "the body", lenient=True)
    except MetadataError as error:
        raise ApiError("ValidationException", str(error)) from error
    if not isinstance(content, dict):
        raise ApiError("ValidationException", "the body must be a JSON object")
    return dict(_without_null(content))


def _without_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_null(held) for key, held in value.items() if held is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def validate(operation: str, parameters: Any, *, service: str = "bedrock") -> None:
    """Check parameters of an operation against botocore's service model, as the service does.

    Types are checked already (`check_types`); patterns and sizes only the service knows.

    Raises:
        ApiError: ValidationException that names every member out of bounds.
    """
    findings = list(_findings(_input_shape(service, operation), parameters, ""))
    if findings:
        raise ApiError("ValidationException", f"{len(findings)} validation error(s): " + "; ".join(findings))


@cache
def _input_shape(service: str, operation: str) -> Any:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    # Not through a session, which would read the user's configuration.
    return ServiceModel(Loader().load_service_model(service, "service-2")).operation_model(operation).input_shape


def _findings(shape: Any, value: Any, path: str) -> Iterator[str]:
    if shape.type_name == "structure":
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _findings(member, value[name], f"{path}.{name}" if path else name)
        return
    limits = shape.metadata
    size = value if shape.type_name == "integer" else len(value) if shape.type_name in ("string", "list") else None
    if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"{path} = {value!r} must lie between {limits.get('min')} and {limits.get('max')} in size"
    elif "enum" in limits and value not in limits["enum"]:
        yield f"{path} = {value!r} must be one of {limits['enum']}"
    elif "pattern" in limits and not re.fullmatch(_linear(limits["pattern"]), value):
        yield f"{path} = {value!r} must match the pattern {limits['pattern']}"
    elif shape.type_name == "list":
        for position, item in enumerate(value):
            yield from _findings(shape.member, item, f"{path}[{position}]")


def _linear(pattern: str) -> str:
    # Names are "(-*[…-…])*": where the class holds the dash too, this says the same without exponential backtracking.
    pattern = re.sub(r"\(-\*(\[[^]]*\\-[^]]*\])", r"(\1", pattern)
    # Java's classes of letters, spaces and digits, which Python has not.
    for java, python in ((r"\p{Alnum}", "a-zA-Z0-9"), (r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return pattern
