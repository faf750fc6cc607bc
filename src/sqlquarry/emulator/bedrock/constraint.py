"""Parse the constraints of a request (`response_format` and `structured_outputs`)."""

from __future__ import annotations

from sqlquarry.emulator.bedrock.allowed_keys import InvocationOptions
from sqlquarry.emulator.bedrock.answer_formats import AnswerFormat, BedrockCompletion
from sqlquarry.emulator.requests.errors import invalid
from sqlquarry.errors import ConfigError
from sqlquarry.models.local.constraints import AnswerForm


def read_constraint(given: InvocationOptions, answer_format: type[AnswerFormat]) -> AnswerForm | None:
    """Return the form that an answer must have, or None for free text.

    Raises:
        ApiError: ValidationException that says why the form is invalid.
    """
    outputs = _without_null(given.get("structured_outputs"))
    wanted = _without_null(given.get("response_format"))
    if outputs is not None and wanted is not None:
        raise invalid("structured_outputs and response_format cannot be used together")
    if outputs is not None:
        if len(outputs) != 1:
            raise invalid(
                f"structured_outputs must contain exactly one of json, regex, choice and grammar, but contains "
                f"{sorted(outputs)}"
            )
        ((kind, value),) = outputs.items()
        return _read_form("structured_outputs", kind, value)
    if wanted is None or wanted == {"type": "text"}:
        return None
    if wanted == {"type": "json_object"}:
        return _read_form("response_format", "json", {"type": "object"})
    if wanted.get("type") != "json_schema" or wanted.keys() != {"type", "json_schema"}:
        raise invalid(
            "response_format must have the type text, json_object, or json_schema with a key json_schema, but is "
            f"{wanted!r:.80}"
        )
    return _read_form("response_format", "json", _schema(wanted["json_schema"], answer_format))


def _without_null(value: dict[str, object] | None) -> dict[str, object] | None:
    return value if value is None else {key: held for key, held in value.items() if held is not None}


def _read_form(key: str, kind: str, value: object) -> AnswerForm:
    try:
        return AnswerForm.of(kind, value)
    except ConfigError as error:
        raise invalid(f"{key}: {error}") from error


def _schema(described: object, answer_format: type[AnswerFormat]) -> object:
    """Return the schema in a response_format.

    In BedrockCompletion, json_schema is the schema itself. In the other formats, it contains a name and the schema.
    """
    if answer_format is BedrockCompletion:
        if not isinstance(described, dict) or isinstance(described.get("schema"), dict):
            raise invalid(f"response_format.json_schema must be the schema itself, but is {described!r:.80}")
        return described
    if (
        not isinstance(described, dict)
        or not {"name", "schema"} <= described.keys() <= {"name", "schema", "strict", "description"}
        or not isinstance(described["name"], str)
        or not isinstance(described["schema"], dict)
        or not isinstance(described.get("strict"), bool | None)
        or not isinstance(described.get("description"), str | None)
    ):
        raise invalid(f"response_format.json_schema must be an object with name and schema, but is {described!r:.80}")
    return described["schema"]
