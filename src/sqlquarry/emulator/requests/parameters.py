"""Check the parameters of operations against botocore's service models, as AWS does before it runs an operation."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sized
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

from sqlquarry.emulator.requests.errors import ApiError, invalid
from sqlquarry.errors import MetadataError
from sqlquarry.files.metadata import parse_json

if TYPE_CHECKING:
    from botocore.model import Shape

# Parameters and answers of an operation, with the types of botocore's service model.
Parameters = Mapping[str, object]
ApiAnswer = dict[str, object]


@dataclass(frozen=True, slots=True)
class BrokenStream:
    """An answer whose event stream ends with an error.

    Args:
        answer: answer with the events before the error.
        error: error at the end of the stream.
    """

    answer: ApiAnswer
    error: ApiError


def check_types(operation: str, parameters: Parameters, *, service: str) -> None:
    """Check that required members are present and that all members have the types of botocore's service model.

    botocore checks that itself before it sends a request, but other clients may not.

    Raises:
        ApiError: ValidationException that names every wrong member.
    """
    from botocore.validate import ParamValidator

    shape = _input_shape(service, operation)
    report = ParamValidator().validate(parameters, shape) if shape else None
    if report and report.has_errors():
        raise invalid(report.generate_report())


def json_members(operation: str, body: bytes | str, *, service: str) -> dict[str, object]:
    """Return the members in an operation's body without conversion, because moto drops unknown ones and converts types.

    Members that are null are left out, as in the service. The result is empty if the complete body is one member, as in
    InvokeModel.

    Raises:
        ApiError: ValidationException if the body is not a JSON object.
    """
    shape = _input_shape(service, operation)
    if not body or shape is None or "payload" in shape.serialization:
        return {}
    try:
        content = parse_json(body, "the body", lenient=True)
    except MetadataError as error:
        raise invalid(str(error)) from error
    if not isinstance(content, dict):
        raise invalid("the body must be a JSON object")
    return {key: _without_null(held) for key, held in content.items() if held is not None}


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(held) for key, held in value.items() if held is not None}
    return [_without_null(item) for item in value] if isinstance(value, list) else value


def validate(operation: str, parameters: Parameters, *, service: str = "bedrock") -> None:
    """Check the patterns, sizes and enumerations of parameters against botocore's service model, as the service does.

    botocore checks only types before it sends (`check_types`).

    Raises:
        ApiError: ValidationException that names every member that is out of range.
    """
    shape = _input_shape(service, operation)
    problems = list(_problems(shape, parameters, "")) if shape else []
    if problems:
        raise invalid(f"{len(problems)} validation error(s): " + "; ".join(problems))


@cache
def _input_shape(service: str, operation: str) -> Shape | None:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    # A session would read the user's configuration, so none is used here.
    return ServiceModel(Loader().load_service_model(service, "service-2")).operation_model(operation).input_shape


def _problems(shape: Shape, value: object, path: str) -> Iterator[str]:
    from botocore.model import ListShape, StructureShape

    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        for name, member in shape.members.items():
            if value.get(name) is not None:
                yield from _problems(member, value[name], f"{path}.{name}" if path else name)
        return
    limits = shape.metadata
    size = _size(shape, value)
    if size is not None and not limits.get("min", size) <= size <= limits.get("max", size):
        yield f"the size of {path} = {value!r} must be between {limits.get('min')} and {limits.get('max')}"
    elif "enum" in limits and value not in limits["enum"]:
        yield f"{path} = {value!r} must be one of {limits['enum']}"
    elif "pattern" in limits and not re.fullmatch(_linear(limits["pattern"]), str(value)):
        yield f"{path} = {value!r} must match the pattern {limits['pattern']}"
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for position, item in enumerate(value):
            yield from _problems(shape.member, item, f"{path}[{position}]")


def _size(shape: Shape, value: object) -> int | None:
    """Return the number that a shape's minimum and maximum apply to: an integer's value, or a text's or list's length.

    Return None for other types.
    """
    if shape.type_name == "integer" and isinstance(value, int):
        return value
    return len(value) if shape.type_name in ("string", "list") and isinstance(value, Sized) else None


def _linear(pattern: str) -> str:
    # Names are "(-*[…-…])*". If the class contains the dash too, this replacement matches the same names without
    # exponential backtracking.
    pattern = re.sub(r"\(-\*(\[[^]]*\\-[^]]*\])", r"(\1", pattern)
    # Python lacks Java's classes of letters, spaces and digits.
    for java, python in ((r"\p{Alnum}", "a-zA-Z0-9"), (r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return pattern
