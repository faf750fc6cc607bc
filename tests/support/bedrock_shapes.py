"""Check requests against botocore's API model, so that unknown parameters and invalid texts fail a test."""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import botocore.session
from botocore.validate import ParamValidator


@lru_cache
def _model(service: str) -> Any:
    return botocore.session.get_session().get_service_model(service)


def check_request(service: str, operation: str, request: dict[str, Any]) -> None:
    shape = _model(service).operation_model(operation).input_shape
    report = ParamValidator().validate(request, shape)
    assert not report.has_errors(), report.generate_report()
    _check_texts(request, shape, operation)


def check_answer(service: str, operation: str, answer: dict[str, Any]) -> None:
    report = ParamValidator().validate(answer, _model(service).operation_model(operation).output_shape)
    assert not report.has_errors(), report.generate_report()


def _check_texts(value: Any, shape: Any, place: str) -> None:
    """Check patterns and enums, which botocore itself does not check."""
    if shape.type_name == "structure" and isinstance(value, dict) and not getattr(shape, "is_document_type", False):
        for name, part in value.items():
            _check_texts(part, shape.members[name], f"{place}.{name}")
    elif shape.type_name == "list":
        for part in value:
            _check_texts(part, shape.member, place)
    elif shape.type_name == "string":
        pattern, enum = shape.metadata.get("pattern"), getattr(shape, "enum", None)
        assert not pattern or re.fullmatch(pattern, value), f"{place}: {value!r} is not {pattern}"
        assert not enum or value in enum, f"{place}: {value!r} is not in {enum}"
