"""Let the emulator's services answer the requests that moto receives.

moto routes requests by botocore's service model and looks up the operation's method on its Response class at each call.
So new operations need no URLs. It is enough to set methods on the class.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Protocol

from sqlquarry.emulator.faults import AnswerReset, Faults, is_named
from sqlquarry.emulator.requests.broken_connections import CUT_AFTER
from sqlquarry.emulator.requests.errors import COMMON_STATUSES, QUERY_CODES, ApiError
from sqlquarry.emulator.requests.parameters import ApiAnswer, BrokenStream, Parameters, check_types, json_members

# These replace moto's own methods of the same names (tags of customization jobs, InvokeModel's empty answer).
BEDROCK_OPERATIONS = (
    "create_model_import_job",
    "get_model_import_job",
    "list_model_import_jobs",
    "get_imported_model",
    "list_imported_models",
    "delete_imported_model",
    "tag_resource",
    "untag_resource",
    "list_tags_for_resource",
)
RUNTIME_OPERATIONS = ("invoke_model", "invoke_model_with_response_stream", "converse", "converse_stream")
IAM_OPERATIONS = ("simulate_principal_policy",)
SAGEMAKER_OPERATIONS = (
    "create_training_job",
    "describe_training_job",
    "list_training_jobs",
    "stop_training_job",
    "delete_training_job",
    "add_tags",
    "delete_tags",
    "list_tags",
)
QUOTA_OPERATIONS = ("get_service_quota", "list_service_quotas")


class MotoResponse(Protocol):
    """The part of moto's BaseResponse that the emulator uses. It contains one request and serializes its answer."""

    service_name: str
    boto3_service_name: str
    region: str
    body: bytes | str
    normalized_request: object
    params: dict[str, object]

    def _get_action(self) -> str: ...

    def parse_parameters(self, request: object) -> None:
        """Parse the parameters of the request into `params`."""
        ...

    def serialized(self, result: object) -> tuple[int, dict[str, str], bytes]:
        """Serialize an answer or an exception in the service's protocol, as status, headers and body."""
        ...


@dataclass(frozen=True, slots=True)
class Services:
    """The services that answer. Their methods are named after the operations.

    Args:
        bedrock: answers `BEDROCK_OPERATIONS`.
        bedrock_runtime: answers `RUNTIME_OPERATIONS`.
        sagemaker: answers `SAGEMAKER_OPERATIONS`.
        iam: answers `IAM_OPERATIONS`.
        service_quotas: answers `QUOTA_OPERATIONS`.
    """

    bedrock: object
    bedrock_runtime: object
    sagemaker: object
    iam: object
    service_quotas: object


def install(services: Services, *, region: str, faults: Faults, on_reset: Callable[[], None]) -> Callable[[], None]:
    """Replace moto's own services, and return a function that restores them.

    Args:
        services: the new services.
        region: only region that they serve, except for IAM, which is global.
        faults: checked before every operation of every service except S3 (see `s3_rules`).
        on_reset: called after moto has reset itself, which clients request at /moto-api/reset.
    """
    from moto.bedrock.responses import BedrockResponse
    from moto.bedrockruntime.responses import BedrockRuntimeResponse
    from moto.core.responses import BaseResponse
    from moto.iam.responses import IamResponse
    from moto.moto_api._internal.models import MotoAPIBackend
    from moto.sagemaker.responses import SageMakerResponse
    from moto.servicequotas.responses import ServiceQuotasResponse

    undo = ExitStack()
    stock_reset = MotoAPIBackend.reset

    def reset(backend: object) -> None:
        stock_reset(backend)
        on_reset()

    _replace(undo, MotoAPIBackend, "reset", reset)
    _replace(undo, BaseResponse, "call_action", _with_faults(faults, BaseResponse.call_action))
    for response, names, service, only in (
        (BedrockResponse, BEDROCK_OPERATIONS, services.bedrock, region),
        (BedrockRuntimeResponse, RUNTIME_OPERATIONS, services.bedrock_runtime, region),
        (SageMakerResponse, SAGEMAKER_OPERATIONS, services.sagemaker, region),
        (IamResponse, IAM_OPERATIONS, services.iam, None),
        (ServiceQuotasResponse, QUOTA_OPERATIONS, services.service_quotas, region),
    ):
        for name in names:
            _replace(undo, response, name, _operation(getattr(service, name), only))
    return undo.close


def _replace(undo: ExitStack, owner: type, name: str, value: object) -> None:
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)


def _with_faults(faults: Faults, stock: Callable[[MotoResponse], object]) -> Callable[[MotoResponse], object]:
    """Return a replacement for BaseResponse.call_action that answers with the error of a fault, or lets moto answer."""
    from flask import request

    def call_action(response: MotoResponse) -> object:
        operation = response._get_action() or ""  # noqa: SLF001 - see compatibility.RELIES_ON
        if fault := faults.refusal(operation):
            return _error(response, fault.code, fault.message)
        if cut := faults.take(AnswerReset, lambda fault: is_named(operation, fault.operation)):
            request.environ[CUT_AFTER] = cut.after_bytes
        return stock(response)

    return call_action


def _error(response: MotoResponse, code: str, message: str) -> tuple[int, dict[str, str], bytes]:
    """Return an error in the service's protocol, with the HTTP status from its model or from AWS's common errors."""
    from moto.core.responses import ActionResult

    known: int | None
    if response.service_name in ("iam", "sts"):
        code, known = QUERY_CODES.get(code, (code, None))
    else:
        known = COMMON_STATUSES.get(code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moto warns about codes that a service's model does not list
        status, headers, body = response.serialized(ActionResult(_service_exception()(code, message)))
    headers["status"] = str(known or status)
    return int(headers["status"]), headers, body


@cache
def _service_exception() -> Callable[[str, str], Exception]:
    from moto.core.exceptions import ServiceException

    # The class must belong to a module outside moto. For exceptions of its own packages, moto looks up the error's
    # shape in the AWS service that has the package's name.
    return type("RequestRefusedError", (ServiceException,), {"__module__": __name__})


def _operation(
    handle: Callable[[Parameters], ApiAnswer | BrokenStream], region: str | None
) -> Callable[[MotoResponse], object]:
    """Return the method that moto calls on its Response object. It parses and serializes by botocore's shapes."""
    from moto.core.responses import ActionResult

    def respond(response: MotoResponse) -> object:
        if region not in (None, response.region):
            message = f"this emulator serves {region} only, not {response.region}"
            raise _service_exception()("ValidationException", message)
        response.parse_parameters(response.normalized_request)
        # moto's times are naive datetimes in UTC.
        parameters = {
            name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
            for name, value in response.params.items()
        }
        try:
            action, service = response._get_action(), response.boto3_service_name  # noqa: SLF001 - as above
            sent = json_members(action, response.body, service=service) if service.startswith("bedrock") else {}
            check_types(action, parameters | sent, service=service)
            answer = handle(parameters)
        except ApiError as error:
            raise _service_exception()(error.code, error.message) from error
        if isinstance(answer, dict):
            return ActionResult(answer)
        status, headers, body = response.serialized(ActionResult(answer.answer))
        return status, headers, body + _error_event(answer.error)

    return respond


def _error_event(error: ApiError) -> bytes:
    """Return the message that ends an event stream with an error, because moto itself writes events only."""
    from moto.core.eventstream import EventStreamEncoder

    # In streams, codes are members of the answer's shape and begin with a small letter.
    code = error.code[:1].lower() + error.code[1:]
    headers = {":message-type": "exception", ":exception-type": code, ":content-type": "application/json"}
    encoded: bytes = EventStreamEncoder().encode_message(headers, json.dumps({"message": error.message}).encode())
    return encoded
