"""Where the emulator meets moto (for S3 see `moto_s3`), and every private part of moto that it leans on.

moto routes by botocore's service model and looks the operation's method up on its Response class at each call, so new
operations need no URLs: it is enough to set them on the class. `RELIES_ON` lists what is used; `check_moto` says loudly
when another version of moto lacks any of it.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import warnings
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime
from functools import cache, partial
from hmac import compare_digest
from http.client import HTTP_PORT
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sqlquarry.emulator.faults import AnswerReset, Faults, is_named
from sqlquarry.emulator.moto_s3 import bucket_owner, bucket_region, receive_parts
from sqlquarry.emulator.requests.api import (
    COMMON_STATUSES,
    QUERY_WORDS,
    STREAM_ERROR,
    ApiError,
    Parameters,
    check_types,
    json_members,
)
from sqlquarry.emulator.requests.gate import CUT_AFTER, gate
from sqlquarry.emulator.requests.guard import guard
from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.errors import EmulatorError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

TESTED_VERSIONS = r"5\.2\.\d+"
_CLIENT_TIMEOUT_S = 60.0

# Module, what is used of it, and what for.
RELIES_ON = (
    ("moto.server", "DomainDispatcherApplication", "the server: which service a request is for"),
    ("moto.server", "create_backend_app", "the server: an application per service"),
    ("moto.server", "MotoRequestHandler", "the server: header names of S3's metadata"),
    ("werkzeug.serving", "WSGIRequestHandler.make_environ", "faults: werkzeug.socket; the guard: RAW_URI, as it came"),
    ("moto.moto_api._internal.models", "moto_api_backend.reset", "clearing moto's process-global state"),
    ("moto.moto_api._internal.models", "MotoAPIBackend.reset", "clearing ours where a client asks moto to reset"),
    ("moto.core.responses", "ActionResult", "answers, written by botocore's output shape"),
    ("moto.core.responses", "BaseResponse.call_action", "calling the method that is named after the operation; faults"),
    ("moto.core.responses", "BaseResponse._get_action", "faults: which operation a request is for"),
    ("moto.core.responses", "BaseResponse.serialized", "faults: errors, and streams that break"),
    ("moto.core.eventstream", "EventStreamEncoder.encode_message", "errors in the middle of a stream"),
    ("moto.core.responses", "BaseResponse.parse_parameters", "reading requests by botocore's input shape"),
    ("moto.core.exceptions", "ServiceException", "errors, written by botocore's error shape"),
    ("moto.bedrock.responses", "BedrockResponse", "the class that receives bedrock operations"),
    ("moto.bedrockruntime.responses", "BedrockRuntimeResponse", "the class that receives bedrock-runtime operations"),
    ("moto.iam.responses", "IamResponse", "the class that receives iam operations"),
    ("moto.sagemaker.responses", "SageMakerResponse", "the class that receives sagemaker operations"),
    ("moto.servicequotas.responses", "ServiceQuotasResponse", "the class that receives service-quotas operations"),
    ("moto.s3.models", "s3_backends", "reading and writing objects"),
    ("moto.s3.models", "S3Backend.get_bucket", "reading objects"),
    ("moto.s3.models", "s3_backends.bucket_accounts", "whose a bucket is"),
    (
        "moto.s3.models",
        "FakeKey.value",
        "objects in files, never in memory: _value_buffer, contentsize, _etag and lock",
    ),
    ("moto.s3.models", "FakeKey.dispose", "closing the object that check_moto makes"),
    ("moto.s3.models", "FakeMultipart.complete", "joining an upload's parts as files"),
    ("moto.s3.models", "FakeMultipart.set_part", "receiving a part as a file"),
    ("moto.settings", "S3_UPLOAD_PART_MIN_SIZE", "joining an upload's parts"),
    (
        "moto.iam.models",
        "iam_backends",
        "looking at roles; keys that CreateAccessKey made: users and their access_keys",
    ),
    ("moto.iam.models", "IAMBackend.get_role_by_arn", "looking at roles: assume_role_policy_document"),
    ("moto.sts.models", "sts_backends", "keys that AssumeRole made: assumed_roles"),
)
# They take the place of moto's own methods of these names (tags of customization jobs, InvokeModel's empty answer).
CONTROL_OPERATIONS = (
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
TRAINING_OPERATIONS = (
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


def check_moto() -> None:
    """Check that the installed moto is one that this emulator was tested with.

    Raises:
        EmulatorError: the version is outside 5.2.x, or a part that the emulator leans on is missing.
    """
    import moto

    missing = [f"{module}.{path} ({use})" for module, path, use in RELIES_ON if not _exists(module, path)]
    if not missing:
        from moto.s3.models import FakeKey

        probe = FakeKey(name="probe", value=b"", account_id="0", region_name="us-east-1")
        missing += [
            f"FakeKey().{name}"
            for name in ("_value_buffer", "contentsize", "_etag", "lock")
            if not hasattr(probe, name)
        ]
        probe.dispose()
    if missing or not re.fullmatch(TESTED_VERSIONS, moto.__version__):
        raise EmulatorError(
            f"moto {moto.__version__} cannot carry the emulator, which is tested with 5.2.x"
            + (f" and needs {', '.join(missing)}" if missing else "")
            + ". Run: pip install 'sqlquarry[emulator]'"
        )


def _exists(module: str, path: str) -> bool:
    try:
        found: Any = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return True


def make_server(listener: socket.socket, faults: Faults, *, account: str, key: AccessKey) -> BaseWSGIServer:
    """Make the server of moto on a socket that listens already; its own start would hang where the port is taken.

    Args:
        listener: the socket.
        faults: what goes wrong on purpose.
        account: to which every request belongs.
        key: what requests must be signed with; those that moto's IAM and STS make later are taken too.
    """
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug import serving

    host, port = listener.getsockname()
    application = receive_parts(DomainDispatcherApplication(create_backend_app), account)
    application = gate(application, faults, partial(bucket_region, account=account), bucket_owner)
    application = guard(
        application,
        hosts=[name if port == HTTP_PORT else f"{name}:{port}" for name in (host, "localhost")],
        find_key=lambda name: key if compare_digest(name.encode(), key.id.encode()) else _made_key(name, account),
        account=account,
    )
    handler = type(
        "Handler",
        (MotoRequestHandler,),
        {
            "timeout": _CLIENT_TIMEOUT_S,  # a client that sends half a request is not waited for
            # Of requests that are not HTTP, which http.server answers itself.
            "error_content_type": "application/xml",
            "error_message_format": "<Error><Code>%(code)d</Code><Message>%(message)s</Message></Error>",
        },
    )
    return serving.make_server(host, port, application, threaded=True, request_handler=handler, fd=listener.fileno())


def _made_key(name: str, account: str) -> AccessKey | None:
    """A key that CreateAccessKey or AssumeRole of the emulated services has made."""
    from moto.iam.models import iam_backends
    from moto.sts.models import sts_backends

    for role in list(sts_backends[account]["aws"].assumed_roles):
        if role.access_key_id == name:
            return AccessKey(name, role.secret_access_key, role.session_token)
    for user in list(iam_backends[account]["aws"].users.values()):
        for made in list(user.access_keys):
            if made.access_key_id == name and made.status == "Active":
                return AccessKey(name, made.secret_access_key)
    return None


def reset_moto() -> None:
    """Clear the state of every emulated service in this process."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()


def role_trusts(service: str, arn: str, *, account: str) -> bool:
    """Whether a role of this ARN exists in emulated IAM and lets a service ("bedrock.amazonaws.com") assume it."""
    from moto.iam.exceptions import NotFoundException
    from moto.iam.models import iam_backends

    try:
        role = iam_backends[account]["aws"].get_role_by_arn(arn)
    except NotFoundException:
        return False
    return service in role.assume_role_policy_document


def choose_account() -> str:
    """Choose the account that every request of this process belongs to: a random one, unless moto is told which."""
    return os.environ.get("MOTO_ACCOUNT_ID") or str(secrets.randbelow(9 * 10**11) + 10**11)


def install(
    *,
    control: Any,
    runtime: Any,
    training: Any,
    account: Any,
    region: str,
    faults: Faults,
    on_reset: Callable[[], None],
) -> Callable[[], None]:
    """Let the methods of three objects answer the operations of the same names; returns what undoes it.

    Args:
        control: answers `CONTROL_OPERATIONS`.
        runtime: answers `RUNTIME_OPERATIONS`.
        training: answers `TRAINING_OPERATIONS`.
        account: answers `IAM_OPERATIONS` and `QUOTA_OPERATIONS`.
        region: the only one that is served, IAM apart.
        faults: asked before every operation of every service but S3 (see `gate`).
        on_reset: called after moto has reset itself, which clients ask for at /moto-api/reset.
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

    def reset(backend: Any) -> None:
        stock_reset(backend)
        on_reset()

    _replace(undo, MotoAPIBackend, "reset", reset)
    _replace(undo, BaseResponse, "call_action", _behind(faults, BaseResponse.call_action))
    for response, names, service, only in (
        (BedrockResponse, CONTROL_OPERATIONS, control, region),
        (BedrockRuntimeResponse, RUNTIME_OPERATIONS, runtime, region),
        (SageMakerResponse, TRAINING_OPERATIONS, training, region),
        (IamResponse, IAM_OPERATIONS, account, None),
        (ServiceQuotasResponse, QUOTA_OPERATIONS, account, region),
    ):
        for name in names:
            _replace(undo, response, name, _operation(getattr(service, name), only))
    return undo.close


def _replace(undo: ExitStack, owner: type, name: str, value: Any) -> None:
    if name in vars(owner):
        undo.callback(setattr, owner, name, vars(owner)[name])
    else:
        undo.callback(delattr, owner, name)
    setattr(owner, name, value)


def _behind(faults: Faults, stock: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """In place of BaseResponse.call_action: the error that a fault wants, else what moto answers."""
    from flask import request

    def call_action(response: Any) -> Any:
        operation = response._get_action() or ""  # noqa: SLF001 - see RELIES_ON
        if fault := faults.refusal(operation):
            return _error(response, fault.code, fault.message)
        if cut := faults.take(AnswerReset, lambda fault: is_named(operation, fault.operation)):
            request.environ[CUT_AFTER] = cut.after_bytes
        return stock(response)

    return call_action


def _error(response: Any, code: str, message: str) -> Any:
    """An error answer in the service's protocol, with the HTTP status that its model or AWS's common errors name."""
    from moto.core.responses import ActionResult

    known: int | None
    if response.service_name in ("iam", "sts"):
        code, known = QUERY_WORDS.get(code, (code, None))
    else:
        known = COMMON_STATUSES.get(code)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # moto's, of codes that a service's model does not list
        status, headers, body = response.serialized(ActionResult(_refusal()(code, message)))
    headers["status"] = str(known or status)
    return int(headers["status"]), headers, body


@cache
def _refusal() -> Any:
    from moto.core.exceptions import ServiceException

    # Of a module outside moto on purpose: for an exception of its own, moto looks for the error's shape in the AWS
    # service that it takes the package's name for.
    return type("RequestRefusedError", (ServiceException,), {"__module__": __name__})


def _operation(handle: Callable[[Parameters], dict[str, Any]], region: str | None) -> Callable[[Any], Any]:
    """The method that moto calls on its Response object: parameters by botocore's shapes in, an answer by them out."""
    from moto.core.responses import ActionResult

    def respond(response: Any) -> Any:
        if region not in (None, response.region):
            message = f"this emulator serves {region} only, not {response.region}"
            raise _refusal()("ValidationException", message)
        response.parse_parameters(response.normalized_request)
        # moto's times are naive and in UTC.
        parameters = {
            name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
            for name, value in response.params.items()
        }
        try:
            action, service = response._get_action(), response.boto3_service_name  # noqa: SLF001 - likewise
            sent = json_members(action, response.body, service=service) if service.startswith("bedrock") else {}
            check_types(action, parameters | sent, service=service)
            answer = handle(parameters)
        except ApiError as error:
            raise _refusal()(error.code, error.message) from error
        breaks = answer.pop(STREAM_ERROR, None)
        if breaks is None:
            return ActionResult(answer)
        status, headers, body = response.serialized(ActionResult(answer))
        return status, headers, body + _error_event(breaks)

    return respond


def _error_event(error: ApiError) -> bytes:
    """The message that ends an event stream with an error; moto itself writes events only."""
    from moto.core.eventstream import EventStreamEncoder

    # In streams codes are members of the answer's shape, which begin with a small letter.
    code = error.code[:1].lower() + error.code[1:]
    headers = {":message-type": "exception", ":exception-type": code, ":content-type": "application/json"}
    encoded: bytes = EventStreamEncoder().encode_message(headers, json.dumps({"message": error.message}).encode())
    return encoded
