"""The checks of parameters that AWS makes before any operation runs, by botocore's service models."""

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

# Parameters and answers of an operation, in the types of botocore's service model.
Parameters = Mapping[str, object]
ApiAnswer = dict[str, object]


@dataclass(frozen=True, slots=True)
class BrokenStream:
    """An answer whose event stream ends with an error.

    Args:
        answer: the answer with the events before it.
        error: the error.
    """

    answer: ApiAnswer
    error: ApiError


def check_types(operation: str, parameters: Parameters, *, service: str) -> None:
    """Check that required members are there and that all have the types of botocore's service model.

    botocore does so itself before it sends; other clients may not.

    Raises:
        ApiError: ValidationException that names every wrong member.
    """
    from botocore.validate import ParamValidator

    shape = _input_shape(service, operation)
    report = ParamValidator().validate(parameters, shape) if shape else None
    if report and report.has_errors():
        raise invalid(report.generate_report())


def json_members(operation: str, body: bytes | str, *, service: str) -> dict[str, object]:
    """Return the members of an operation as its body holds them: moto ignores unknown ones, and converts types.

    Members that are null are left out, as the service does. A body that is one member (InvokeModel's) has none.

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
    """Check the patterns, sizes and enumerations of parameters by botocore's service model, as the service does.

    botocore checks only types before it sends (`check_types`).

    Raises:
        ApiError: ValidationException that names every member out of bounds.
    """
    shape = _input_shape(service, operation)
    problems = list(_problems(shape, parameters, "")) if shape else []
    if problems:
        raise invalid(f"{len(problems)} validation error(s): " + "; ".join(problems))


@cache
def _input_shape(service: str, operation: str) -> Shape | None:
    from botocore.loaders import Loader
    from botocore.model import ServiceModel

    # Not through a session, which would read the user's configuration.
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
        yield f"{path} = {value!r} must lie between {limits.get('min')} and {limits.get('max')} in size"
    elif "enum" in limits and value not in limits["enum"]:
        yield f"{path} = {value!r} must be one of {limits['enum']}"
    elif "pattern" in limits and not re.fullmatch(_linear(limits["pattern"]), str(value)):
        yield f"{path} = {value!r} must match the pattern {limits['pattern']}"
    elif isinstance(shape, ListShape) and isinstance(value, list):
        for position, item in enumerate(value):
            yield from _problems(shape.member, item, f"{path}[{position}]")


def _size(shape: Shape, value: object) -> int | None:
    """Return what a shape's minimum and maximum apply to: a number itself, or the length of a text or list."""
    if shape.type_name == "integer" and isinstance(value, int):
        return value
    return len(value) if shape.type_name in ("string", "list") and isinstance(value, Sized) else None


def _linear(pattern: str) -> str:
    # Names are "(-*[…-…])*": where the class holds the dash too, this says the same without exponential backtracking.
    pattern = re.sub(r"\(-\*(\[[^]]*\\-[^]]*\])", r"(\1", pattern)
    # Java's classes of letters, spaces and digits, which Python does not have.
    for java, python in ((r"\p{Alnum}", "a-zA-Z0-9"), (r"\p{L}", r"\w"), (r"\p{Z}", r"\s"), (r"\p{N}", r"\d")):
        pattern = pattern.replace(java, python)
    return pattern
