"""A list of all parts of moto that the emulator relies on, most of them private, and a check that they exist."""

from __future__ import annotations

import re
from importlib import import_module

from sqlquarry.errors import EmulatorError

TESTED_VERSIONS = r"5\.2\.\d+"

# Module, name in it, and what the emulator uses it for.
RELIES_ON = (
    ("moto.server", "DomainDispatcherApplication", "the server: finding the service of a request"),
    ("moto.server", "create_backend_app", "the server: creating an application for each service"),
    ("moto.server", "MotoRequestHandler", "the server: header names of S3 metadata"),
    ("werkzeug.serving", "WSGIRequestHandler.make_environ", "werkzeug.socket for faults, RAW_URI for authentication"),
    ("moto.moto_api._internal.models", "moto_api_backend.reset", "clearing moto's process-global state"),
    ("moto.moto_api._internal.models", "MotoAPIBackend.reset", "clearing the emulator's state if a client resets moto"),
    ("moto.core.responses", "ActionResult", "serializing answers by botocore's output shape"),
    ("moto.core.responses", "BaseResponse.call_action", "calling the method named after the operation, and faults"),
    ("moto.core.responses", "BaseResponse._get_action", "faults: finding the operation of a request"),
    ("moto.core.responses", "BaseResponse.serialized", "faults: errors and broken streams"),
    ("moto.core.eventstream", "EventStreamEncoder.encode_message", "errors in the middle of a stream"),
    ("moto.core.responses", "BaseResponse.parse_parameters", "parsing requests by botocore's input shape"),
    ("moto.core.exceptions", "ServiceException", "serializing errors by botocore's error shape"),
    ("moto.bedrock.responses", "BedrockResponse", "the class that receives bedrock operations"),
    ("moto.bedrockruntime.responses", "BedrockRuntimeResponse", "the class that receives bedrock-runtime operations"),
    ("moto.iam.responses", "IamResponse", "the class that receives iam operations"),
    ("moto.sagemaker.responses", "SageMakerResponse", "the class that receives sagemaker operations"),
    ("moto.servicequotas.responses", "ServiceQuotasResponse", "the class that receives service-quotas operations"),
    ("moto.s3.models", "s3_backends", "reading and writing objects"),
    ("moto.s3.models", "S3Backend.get_bucket", "reading objects"),
    ("moto.s3.models", "s3_backends.bucket_accounts", "finding the owner of a bucket"),
    (
        "moto.s3.models",
        "FakeKey.value",
        "storing objects in files instead of memory: _value_buffer, contentsize, _etag and lock",
    ),
    ("moto.s3.models", "FakeKey.dispose", "closing the object that check_moto creates"),
    ("moto.s3.models", "FakeMultipart.complete", "joining the parts of an upload as files"),
    ("moto.s3.models", "FakeMultipart.set_part", "receiving a part as a file"),
    ("moto.settings", "S3_UPLOAD_PART_MIN_SIZE", "joining the parts of an upload"),
    (
        "moto.iam.models",
        "iam_backends",
        "reading roles, and keys created by CreateAccessKey (users and their access_keys)",
    ),
    ("moto.iam.models", "IAMBackend.get_role_by_arn", "reading roles: assume_role_policy_document"),
    ("moto.sts.models", "sts_backends", "reading keys created by AssumeRole: assumed_roles"),
)


def check_moto() -> None:
    """Check that this emulator was tested with the installed version of moto.

    Raises:
        EmulatorError: the version is not 5.2.x, or a part that the emulator relies on is missing.
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
            f"the emulator cannot use moto {moto.__version__}, because it was tested with moto 5.2.x only"
            + (f" and needs {', '.join(missing)}" if missing else "")
            + ". Run: pip install 'sqlquarry[emulator]'"
        )


def _exists(module: str, path: str) -> bool:
    try:
        found: object = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return True
