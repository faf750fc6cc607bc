"""`LocalAWS`: the emulator's life, from start to a clean end."""

from __future__ import annotations

import json
import logging
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from sqlquarry.emulator.engine import CompletionModel, EnginePool, LoadModel
from sqlquarry.emulator.storage import temporary_storage
from sqlquarry.errors import ConfigError, EmulatorError
from sqlquarry.extras import require

if TYPE_CHECKING:
    import boto3

HOST = "127.0.0.1"
REGION = "us-east-1"
BUCKET = "sqlquarry-emulator"
ROLE = "sqlquarry-model-import"

# moto's state belongs to the process, so there can be one emulator in it.
_one_per_process = threading.Lock()


class LocalAWS:
    """AWS on this machine: S3 and IAM by moto, Bedrock's model import, and imported models that answer for real.

        with LocalAWS() as aws:
            importer = BedrockImporter(aws.role_arn, session=aws.session())

    The server listens on 127.0.0.1 only. State is empty at the start and gone at the end; as moto keeps it per process,
    `mock_aws` cannot be in use beside it. Not emulated: permissions, throttling, costs, Converse, scale to zero.

    Args:
        import_polls: looks at an import job (Get, or another Create) for which it stays InProgress.
        cold_calls: invocations after an import that answer ModelNotReadyException.
        max_batch: concurrent requests that are decoded together.
        max_loaded_models: models in memory; the one not used for longest makes room.
        port: the port to listen on; 0 takes a free one.
        load_model: makes a model of a directory in transformers' format; None takes `sqlquarry.inference.LocalModel`.

    Raises:
        ConfigError: an option is out of bounds.
        MissingExtraError: the emulator extra is not installed.
    """

    def __init__(
        self,
        *,
        import_polls: int = 2,
        cold_calls: int = 1,
        max_batch: int = 16,
        max_loaded_models: int = 2,
        port: int = 0,
        load_model: LoadModel | None = None,
    ) -> None:
        bad = [
            f"{name} is {value!r}, but must be an integer from {low} to {high}"
            for name, value, low, high in (
                ("import_polls", import_polls, 0, 10_000),
                ("cold_calls", cold_calls, 0, 10_000),
                ("max_batch", max_batch, 1, 1024),
                ("max_loaded_models", max_loaded_models, 1, 64),
                ("port", port, 0, 65_535),
            )
            if not isinstance(value, int) or not low <= value <= high
        ]
        if bad:
            raise ConfigError("LocalAWS: " + "; ".join(bad))
        require("emulator", "LocalAWS")
        self.region = REGION
        self.bucket = BUCKET
        self._import_polls, self._cold_calls, self._port = import_polls, cold_calls, port
        self._pool_limits = {"max_batch": max_batch, "max_loaded": max_loaded_models}
        self._load_model = load_model or (lambda directory: _load_local_model(directory, max_batch))
        self._endpoint_url: str | None = None
        self._role_arn: str | None = None
        self._teardown = ExitStack()

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            EmulatorError: one runs in this process already, the port is taken, or moto is of an untested version.
        """
        if not _one_per_process.acquire(blocking=False):
            raise EmulatorError(
                "a LocalAWS is running in this process already, and moto's state is shared by all of it. "
                "Close that one first, or start the second in another process."
            )
        self._teardown.callback(_one_per_process.release)
        try:
            self._start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the server, unload the models and remove every trace; further calls do nothing."""
        self._endpoint_url = self._role_arn = None
        self._teardown.close()

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:<port>``.

        Raises:
            EmulatorError: it is not running.
        """
        return self._running(self._endpoint_url)

    @property
    def role_arn(self) -> str:
        """An IAM role that Bedrock may assume and that may read the bucket.

        Raises:
            EmulatorError: it is not running.
        """
        return self._running(self._role_arn)

    def session(self) -> boto3.Session:
        """A boto3 session whose every client goes to this emulator.

        Raises:
            EmulatorError: it is not running.
        """
        from sqlquarry.emulator.session import loopback_session

        return loopback_session(self.endpoint_url, self.region)

    def _start(self) -> None:
        from sqlquarry.emulator import moto_bedrock
        from sqlquarry.emulator.imports import ModelImports
        from sqlquarry.emulator.runtime import Runtime

        moto_bedrock.check_moto()
        moto_bedrock.reset_moto()
        self._teardown.callback(moto_bedrock.reset_moto)
        storage = self._teardown.enter_context(temporary_storage())
        pool = EnginePool(self._load_model, **self._pool_limits)
        self._teardown.callback(pool.close)
        imports = ModelImports(
            storage=storage,
            fetch=moto_bedrock.fetch_objects,
            role_trusts_bedrock=moto_bedrock.role_trusts_bedrock,
            on_delete=pool.discard,
            arn_prefix=f"arn:aws:bedrock:{self.region}:{moto_bedrock.account_id()}",
            import_polls=self._import_polls,
            cold_calls=self._cold_calls,
        )
        runtime = Runtime(imports, pool)
        self._teardown.callback(moto_bedrock.install(control=imports, runtime=runtime, region=self.region))
        self._endpoint_url = self._serve()
        session = self.session()
        self._role_arn = _create_role(session, moto_bedrock.account_id())
        session.client("s3").create_bucket(Bucket=self.bucket)

    def _serve(self) -> str:
        from sqlquarry.emulator import moto_bedrock

        try:
            listener = self._teardown.enter_context(socket.create_server((HOST, self._port), backlog=128))
        except OSError as error:
            raise EmulatorError(f"port {self._port} of {HOST} is taken ({error}). Use port=0 for a free one.") from error
        requests_log = logging.getLogger("werkzeug")
        self._teardown.callback(requests_log.setLevel, requests_log.level)
        requests_log.setLevel(logging.WARNING)
        server = moto_bedrock.make_server(listener)
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="local-aws", daemon=True
        )
        thread.start()
        self._teardown.callback(thread.join)
        self._teardown.callback(server.shutdown)
        return f"http://{HOST}:{listener.getsockname()[1]}"

    def _running(self, value: str | None) -> str:
        if value is None:
            raise EmulatorError("this LocalAWS is not running. Use it as a context manager: with LocalAWS() as aws: …")
        return value


def _load_local_model(directory: Path, max_batch: int) -> CompletionModel:
    from sqlquarry.inference import LocalModel

    return LocalModel(directory, batch_size=max_batch)


def _create_role(session: Any, account: str) -> str:
    """The service role of "Create a service role for model import" (Bedrock user guide)."""
    iam = session.client("iam")
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": "bedrock.amazonaws.com"},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }
    access = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{BUCKET}", f"arn:aws:s3:::{BUCKET}/*"],
            }
        ],
    }
    role = iam.create_role(RoleName=ROLE, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=ROLE, PolicyName="read-models", PolicyDocument=json.dumps(access))
    return str(role["Role"]["Arn"])
