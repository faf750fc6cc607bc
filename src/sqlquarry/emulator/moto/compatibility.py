"""Every part of moto, most of them private, that this emulator relies on, and the check that they are there."""

from __future__ import annotations

import re
from importlib import import_module

from sqlquarry.errors import EmulatorError

TESTED_VERSIONS = r"5\.2\.\d+"

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


def check_moto() -> None:
    """Check that the installed moto is one that this emulator was tested with.

    Raises:
        EmulatorError: the version is outside 5.2.x, or a part that the emulator relies on is missing.
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
        found: object = import_module(module)
        for name in path.split("."):
            found = getattr(found, name)
    except (ImportError, AttributeError):
        return False
    return True
