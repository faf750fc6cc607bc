"""Where the emulator meets moto, and every private part of moto that it leans on.

moto routes by botocore's service model and looks the operation's method up on its Response class at each call, so new
operations need no URLs: it is enough to set them on the class. `RELIES_ON` lists what is used; `check_moto` says loudly
when another version of moto lacks any of it.
"""

from __future__ import annotations

import os
import re
import shutil
import socket
from collections.abc import Callable
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.emulator.admission import ImportFailedError
from sqlquarry.emulator.api import ApiError, Parameters
from sqlquarry.errors import EmulatorError

if TYPE_CHECKING:
    from werkzeug.serving import BaseWSGIServer

TESTED_VERSIONS = r"5\.2\.\d+"

# Module, what is used of it, and what for.
RELIES_ON = (
    ("moto.server", "DomainDispatcherApplication", "the server: which service a request is for"),
    ("moto.server", "create_backend_app", "the server: an application per service"),
    ("moto.server", "MotoRequestHandler", "the server: header names of S3's metadata"),
    ("moto.moto_api._internal.models", "moto_api_backend.reset", "clearing moto's process-global state"),
    ("moto.core.responses", "ActionResult", "answers, written by botocore's output shape"),
    ("moto.core.responses", "BaseResponse.call_action", "calling the method that is named after the operation"),
    ("moto.core.responses", "BaseResponse.parse_parameters", "reading requests by botocore's input shape"),
    ("moto.core.exceptions", "ServiceException", "errors, written by botocore's error shape"),
    ("moto.bedrock.responses", "BedrockResponse", "the class that receives bedrock operations"),
    ("moto.bedrockruntime.responses", "BedrockRuntimeResponse", "the class that receives bedrock-runtime operations"),
    ("moto.s3.models", "s3_backends", "reading objects"),
    ("moto.s3.models", "S3Backend.get_bucket", "reading objects"),
    ("moto.s3.models", "FakeKey.dispose", "reading objects without holding them in RAM: its _value_buffer and lock"),
    ("moto.iam.models", "iam_backends", "looking at roles"),
    ("moto.iam.models", "IAMBackend.get_role_by_arn", "looking at roles: assume_role_policy_document"),
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
_COPY_BLOCK_BYTES = 1 << 20


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
        missing += [f"FakeKey().{name}" for name in ("_value_buffer", "lock") if not hasattr(probe, name)]
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


def make_server(listener: socket.socket) -> BaseWSGIServer:
    """moto's server on a socket that listens already: its own would exit or hang where the port is taken."""
    from moto.server import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
    from werkzeug import serving

    host, port = listener.getsockname()
    application = DomainDispatcherApplication(create_backend_app)
    return serving.make_server(
        host, port, application, threaded=True, request_handler=MotoRequestHandler, fd=listener.fileno()
    )


def reset_moto() -> None:
    """Clear the state of every emulated service in this process."""
    from moto.moto_api._internal.models import moto_api_backend

    moto_api_backend.reset()


def fetch_objects(bucket: str, prefix: str, directory: Path) -> None:
    """Copy the objects directly below a prefix of emulated S3 into a directory, block by block.

    Raises:
        ImportFailedError: there is no such bucket.
    """
    from moto.s3.exceptions import MissingBucket
    from moto.s3.models import FakeKey, s3_backends

    try:
        keys = dict(s3_backends[account_id()]["aws"].get_bucket(bucket).keys.items())
    except MissingBucket as error:
        raise ImportFailedError(f"could not access the bucket {bucket}") from error
    folder = f"{prefix}/" if prefix else ""
    for name, key in keys.items():
        file_name = name.removeprefix(folder)
        # A delete marker is not a FakeKey; a deeper "folder" is no part of the model.
        if not name.startswith(folder) or not file_name or "/" in file_name or not isinstance(key, FakeKey):
            continue
        with key.lock, (directory / file_name).open("wb") as file:
            key._value_buffer.seek(0)  # noqa: SLF001 - `value` would copy the object into RAM
            shutil.copyfileobj(key._value_buffer, file, _COPY_BLOCK_BYTES)  # noqa: SLF001 - likewise


def role_trusts_bedrock(arn: str) -> bool:
    """Whether a role of this ARN exists in emulated IAM and lets bedrock.amazonaws.com assume it."""
    from moto.iam.exceptions import NotFoundException
    from moto.iam.models import iam_backends

    try:
        role = iam_backends[account_id()]["aws"].get_role_by_arn(arn)
    except NotFoundException:
        return False
    return "bedrock.amazonaws.com" in role.assume_role_policy_document


def account_id() -> str:
    """The account that every request in this process belongs to."""
    from moto.core import DEFAULT_ACCOUNT_ID

    return str(os.environ.get("MOTO_ACCOUNT_ID", DEFAULT_ACCOUNT_ID))


def install(*, control: Any, runtime: Any, region: str) -> Callable[[], None]:
    """Let the methods of two objects answer the Bedrock operations of the same names; returns what undoes it."""
    from moto.bedrock.responses import BedrockResponse
    from moto.bedrockruntime.responses import BedrockRuntimeResponse

    undo: list[tuple[type, str, Any]] = []
    for response, names, service in (
        (BedrockResponse, CONTROL_OPERATIONS, control),
        (BedrockRuntimeResponse, RUNTIME_OPERATIONS, runtime),
    ):
        for name in names:
            undo.append((response, name, response.__dict__.get(name)))
            setattr(response, name, _operation(getattr(service, name), region))

    def uninstall() -> None:
        for response, name, original in undo:
            if original is None:
                delattr(response, name)
            else:
                setattr(response, name, original)

    return uninstall


def _operation(handle: Callable[[Parameters], dict[str, Any]], region: str) -> Callable[[Any], Any]:
    """The method that moto calls on its Response object: parameters by botocore's shapes in, an answer by them out."""
    from moto.core.exceptions import ServiceException
    from moto.core.responses import ActionResult

    # Of a module outside moto on purpose: for an exception of its own, moto looks for the error's shape in the AWS
    # service that it takes the package's name for.
    refusal: Any = type("Refusal", (ServiceException,), {"__module__": __name__})

    def respond(response: Any) -> Any:
        if response.region != region:
            raise refusal("ValidationException", f"this emulator serves {region} only, not {response.region}")
        response.parse_parameters(response.normalized_request)
        # moto's times are naive and in UTC.
        parameters = {
            name: value.replace(tzinfo=UTC) if isinstance(value, datetime) else value
            for name, value in response.params.items()
        }
        try:
            return ActionResult(handle(parameters))
        except ApiError as error:
            raise refusal(error.code, error.message) from error

    return respond
