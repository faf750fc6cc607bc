"""`LocalAWS`: the emulator's life, from start to a clean end."""

from __future__ import annotations

import json
import logging
import secrets
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar

from sqlquarry.emulator.bedrock.engine import CompletionModel, EnginePool, LoadModel
from sqlquarry.emulator.bedrock.tokenizer import served_tokenizer
from sqlquarry.emulator.faults import Clock, Fault, Faults, all_faults
from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.emulator.storage import temporary_storage
from sqlquarry.errors import ConfigError, EmulatorError
from sqlquarry.extras import require
from sqlquarry.options import check_options

if TYPE_CHECKING:
    import boto3

HOST = "127.0.0.1"
REGION = "us-east-1"

_Value = TypeVar("_Value")
# moto's state belongs to the process, so there can be one emulator in it.
_one_per_process = threading.Lock()


@check_options()
class LocalAWS:
    """AWS on this machine: S3 and IAM by moto; imported models that answer for real, training jobs that train for real.

        with LocalAWS() as aws:
            importer = BedrockImporter(aws.role_arn, session=aws.session())

    The server listens on 127.0.0.1 only, and answers only requests that are signed with the random key of this start,
    which `session` and `environment` hold: no web page and no other user of the machine gets in. State is empty at the
    start and gone at the end; as moto keeps it per process, `mock_aws` cannot be in use beside it. Not emulated:
    permissions, costs.

    Args:
        faults: what goes wrong on purpose from the start (see `sqlquarry.emulator.faults`); `faults.add` adds more.
        import_polls: looks at an import job (Get, or another Create) for which it stays InProgress.
        import_seconds: seconds for which it also does.
        cold_calls: invocations that answer ModelNotReadyException, after an import and after five idle minutes.
        cold_seconds: seconds, from the first of them, for which they also do.
        clock: seconds; what all of these, `seconds` of faults and the service's times are measured by.
        sleep: waits for so many seconds, for slow answers; a `ManualClock` gives both: ``clock, sleep=clock.advance``.
        max_batch: concurrent requests that are decoded together.
        max_loaded_models: models in memory; the one not used for longest makes room.
        port: the port to listen on; 0 takes a free one.
        load_model: makes a model of a directory in transformers' format; None takes `LocalModel`.

    Raises:
        ConfigError: an option is out of bounds.
        MissingExtraError: the emulator extra is not installed.
    """

    def __init__(
        self,
        *,
        faults: Sequence[Fault] = (),
        import_polls: int = 2,
        import_seconds: float = 0.0,
        cold_calls: int = 1,
        cold_seconds: float = 0.0,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
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
        bad += [
            f"{name} is {value!r}, but must be a number of seconds"
            for name, value in (("import_seconds", import_seconds), ("cold_seconds", cold_seconds))
            if not isinstance(value, int | float) or not value >= 0
        ]
        if bad:
            raise ConfigError("LocalAWS: " + "; ".join(bad))
        require("emulator", "LocalAWS")
        self.region = REGION
        # Names that nobody can guess, so no program reaches a bucket or role by habit.
        self.bucket, self._role_name = (f"sqlquarry-{use}-{secrets.token_hex(8)}" for use in ("emulator", "import"))
        self.faults = Faults(clock)
        self._first_faults = all_faults(faults)
        self._imports_options: dict[str, Any] = {
            "import_polls": import_polls,
            "import_seconds": import_seconds,
            "cold_calls": cold_calls,
            "cold_seconds": cold_seconds,
            "clock": clock,
        }
        self._sleep, self._port = sleep, port
        self._pool_limits = {"max_batch": max_batch, "max_loaded": max_loaded_models}
        self._load_model = load_model or (lambda directory: _load_local_model(directory, max_batch))
        self._endpoint_url: str | None = None
        self._role_arn: str | None = None
        self._key: AccessKey | None = None
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
        self._endpoint_url = self._role_arn = self._key = None
        self._teardown.close()

    def reset(self) -> None:
        """Return to an empty account with its role and bucket, without faults; its key stays.

        A client in another process does it by a signed POST to /moto-api/reset.

        Raises:
            EmulatorError: it is not running.
        """
        from sqlquarry.emulator import moto_bedrock

        self._running(self._endpoint_url)
        moto_bedrock.reset_moto()

    @property
    def endpoint_url(self) -> str:
        """``http://127.0.0.1:<port>``.

        Raises:
            EmulatorError: it is not running.
        """
        return self._running(self._endpoint_url)

    @property
    def role_arn(self) -> str:
        """An IAM role that Bedrock and SageMaker may assume and that may read and write the bucket.

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

        return loopback_session(self.endpoint_url, self.region, self._running(self._key))

    def environment(self) -> dict[str, str]:
        """Return the environment variables that lead AWS clients of another process here; the secret key is in them.

        Raises:
            EmulatorError: it is not running.
        """
        from sqlquarry.emulator.session import environment

        return environment(self.endpoint_url, self.region, self._running(self._key))

    def _start(self) -> None:
        from sqlquarry.emulator import moto_bedrock, moto_s3
        from sqlquarry.emulator.account import Account
        from sqlquarry.emulator.bedrock.imports import ModelImports
        from sqlquarry.emulator.bedrock.runtime import Runtime
        from sqlquarry.emulator.training.jobs import TrainingJobs

        moto_bedrock.check_moto()
        moto_bedrock.reset_moto()
        account = moto_bedrock.choose_account()
        self._teardown.callback(moto_bedrock.reset_moto)
        storage = self._teardown.enter_context(temporary_storage())
        pool = EnginePool(self._load_model, **self._pool_limits)
        self._teardown.callback(pool.close)
        imports = ModelImports(
            storage=storage,
            fetch=partial(moto_s3.fetch_objects, account=account, region=self.region),
            role_trusts_bedrock=partial(moto_bedrock.role_trusts, "bedrock.amazonaws.com", account=account),
            on_delete=pool.discard,
            arn_prefix=f"arn:aws:bedrock:{self.region}:{account}",
            faults=self.faults,
            **self._imports_options,
        )

        training = TrainingJobs(
            storage=storage,
            session=self.session,
            aws=self.environment,
            role_is_trusted=partial(moto_bedrock.role_trusts, "sagemaker.amazonaws.com", account=account),
            arn_prefix=f"arn:aws:sagemaker:{self.region}:{account}",
            region=self.region,
            faults=self.faults,
            clock=self._imports_options["clock"],
        )

        def furnish() -> None:
            self.faults.clear()
            imports.reset()
            training.reset()
            self._role_arn = _create_role(iam, self._role_name, self.bucket, account)
            s3.create_bucket(Bucket=self.bucket)

        self._teardown.callback(moto_s3.install())
        self._teardown.callback(
            moto_bedrock.install(
                control=imports,
                runtime=Runtime(imports, pool, self.faults, self._sleep),
                training=training,
                account=Account(self.faults, f"arn:aws:servicequotas:{self.region}:{account}"),
                region=self.region,
                faults=self.faults,
                on_reset=furnish,
            )
        )
        self._key = AccessKey.random()
        self._endpoint_url = self._serve(account, self._key)
        self._teardown.callback(training.close)
        session = self.session()
        iam, s3 = session.client("iam"), session.client("s3")
        furnish()
        self.faults.add(*self._first_faults)

    def _serve(self, account: str, key: AccessKey) -> str:
        from sqlquarry.emulator import moto_bedrock

        try:
            listener = self._teardown.enter_context(socket.create_server((HOST, self._port), backlog=128))
        except OSError as error:
            raise EmulatorError(
                f"port {self._port} of {HOST} is taken ({error}). Use port=0 for a free one."
            ) from error
        requests_log = logging.getLogger("werkzeug")
        self._teardown.callback(requests_log.setLevel, requests_log.level)
        requests_log.setLevel(logging.WARNING)
        server = moto_bedrock.make_server(listener, self.faults, account=account, key=key)
        thread = threading.Thread(
            target=server.serve_forever, kwargs={"poll_interval": 0.02}, name="local-aws", daemon=True
        )
        thread.start()
        self._teardown.callback(thread.join)
        self._teardown.callback(server.shutdown)
        return f"http://{HOST}:{listener.getsockname()[1]}"

    def _running(self, value: _Value | None) -> _Value:
        if value is None:
            raise EmulatorError("this LocalAWS is not running. Use it as a context manager: with LocalAWS() as aws: …")
        return value


def _load_local_model(directory: Path, max_batch: int) -> CompletionModel:
    from sqlquarry.models.local.model import LocalModel

    model = LocalModel(directory, batch_size=max_batch)
    model.tokenizer = served_tokenizer(directory)
    return model


def _create_role(iam: Any, name: str, bucket: str, account: str) -> str:
    """The service role of "Create a service role for model import" (Bedrock user guide), for training jobs too."""
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["bedrock.amazonaws.com", "sagemaker.amazonaws.com"]},
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
                "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName="read-models", PolicyDocument=json.dumps(access))
    return str(role["Role"]["Arn"])
