"""`LocalAWS`, which starts the emulator, resets it and cleans up at the end."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar

from sqlquarry.emulator.bedrock.engine import EnginePool, LoadModel
from sqlquarry.emulator.bedrock.served_model import load_served_model
from sqlquarry.emulator.bedrock.timing import ImportTiming
from sqlquarry.emulator.clock import Clock
from sqlquarry.emulator.faults import Fault, Faults, all_faults
from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.emulator.storage import temporary_storage
from sqlquarry.errors import ConfigError, EmulatorError
from sqlquarry.extras import require
from sqlquarry.options import check_options

if TYPE_CHECKING:
    import boto3

    from sqlquarry.emulator.bedrock.control_plane import ModelImports
    from sqlquarry.emulator.sagemaker.operations import TrainingJobs

REGION = "us-east-1"

_Value = TypeVar("_Value")
# moto's state is global to the process, so a process can run only one emulator.
_one_per_process = threading.Lock()


@check_options()
class LocalAWS:
    """An AWS account on this machine: moto's S3 and IAM, imported models that answer, training jobs that train.

        with LocalAWS() as aws:
            importer = BedrockImporter(aws.role_arn, session=aws.session())

    The server listens on 127.0.0.1 only and answers only signed requests. The access key is random and new at each
    start. `session` and `environment` contain it, but web pages and other users of the machine do not know it. The
    account starts empty and is deleted at the end. moto's state is global to the process, so `mock_aws` cannot be used
    at the same time. Permissions and costs are not emulated.

    Args:
        faults: faults from the start (see `sqlquarry.emulator.faults`). `faults.add` adds more.
        import_polls: number of status requests (Get, or another Create) for which an import job stays InProgress.
        import_s: minimum number of seconds that an import job stays InProgress.
        cold_start_calls: number of invocations that a cold model answers with ModelNotReadyException. A model is cold
            after its import and after five idle minutes.
        cold_start_s: minimum number of seconds, from the first of these invocations, until the model is ready.
        clock: returns the time in seconds. All durations, including those of faults, are measured by it.
        sleep: waits for a number of seconds, for slow answers. With a `ManualClock` named ``clock``, use
            ``sleep=clock.advance``.
        max_batch: maximum number of concurrent requests that are decoded together.
        max_loaded_models: maximum number of models in memory. The least recently used model is unloaded first.
        port: port to listen on. 0 selects a free port.
        load_model: loads a model from a directory in transformers' format. The default loads a `LocalModel` with the
            tokenizer that Bedrock would use.

    Raises:
        ConfigError: an option is out of range.
        MissingExtraError: the emulator extra is not installed.
    """

    def __init__(
        self,
        *,
        faults: Sequence[Fault] = (),
        import_polls: int = 2,
        import_s: float = 0.0,
        cold_start_calls: int = 1,
        cold_start_s: float = 0.0,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        max_batch: int = 16,
        max_loaded_models: int = 2,
        port: int = 0,
        load_model: LoadModel = load_served_model,
    ) -> None:
        integers = {
            "import_polls": (import_polls, 0, 10_000),
            "cold_start_calls": (cold_start_calls, 0, 10_000),
            "max_batch": (max_batch, 1, 1024),
            "max_loaded_models": (max_loaded_models, 1, 64),
            "port": (port, 0, 65_535),
        }
        _check_bounds(integers, {"import_s": import_s, "cold_start_s": cold_start_s})
        require("emulator", "LocalAWS")
        self.region = REGION
        # The names are random, so that no program can rely on a fixed bucket or role.
        self.bucket, self._role_name = (f"sqlquarry-{use}-{secrets.token_hex(8)}" for use in ("emulator", "import"))
        self.faults = Faults(clock)
        self._first_faults = all_faults(faults)
        self._timing = ImportTiming(import_polls, import_s, cold_start_calls, cold_start_s)
        self._clock, self._sleep, self._port = clock, sleep, port
        self._new_pool = partial(EnginePool, load_model, max_batch=max_batch, max_loaded=max_loaded_models)
        self._endpoint_url: str | None = None
        self._role_arn: str | None = None
        self._key: AccessKey | None = None
        self._teardown = ExitStack()

    def __enter__(self) -> Self:
        """Start the server.

        Raises:
            EmulatorError: an emulator is already running in this process, the port is in use, or moto has an untested
                version.
        """
        if not _one_per_process.acquire(blocking=False):
            raise EmulatorError(
                "a LocalAWS is already running in this process, and moto's state is global to the process. Close the "
                "running LocalAWS first, or start the second one in another process."
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
        """Stop the server, unload the models and remove all files. Further calls do nothing."""
        self._endpoint_url = self._role_arn = self._key = None
        self._teardown.close()

    def reset(self) -> None:
        """Empty the account and switch all faults off. Role, bucket and access key remain valid.

        A client in another process can do the same with a signed POST to /moto-api/reset.

        Raises:
            EmulatorError: the emulator is not running.
        """
        from sqlquarry.emulator.moto.state import reset_moto

        self._running(self._endpoint_url)
        reset_moto()

    @property
    def endpoint_url(self) -> str:
        """The URL of the server, ``http://127.0.0.1:<port>``.

        Raises:
            EmulatorError: the emulator is not running.
        """
        return self._running(self._endpoint_url)

    @property
    def role_arn(self) -> str:
        """The ARN of an IAM role that Bedrock and SageMaker may assume and that may read and write the bucket.

        Raises:
            EmulatorError: the emulator is not running.
        """
        return self._running(self._role_arn)

    def session(self) -> boto3.Session:
        """Return a boto3 session whose clients all use this emulator.

        Raises:
            EmulatorError: the emulator is not running.
        """
        from sqlquarry.emulator.session import loopback_session

        return loopback_session(self.endpoint_url, self.region, self._running(self._key))

    def environment(self) -> dict[str, str]:
        """Return environment variables that make AWS clients of another process use this emulator.

        They contain the secret key.

        Raises:
            EmulatorError: the emulator is not running.
        """
        from sqlquarry.emulator.session import environment

        return environment(self.endpoint_url, self.region, self._running(self._key))

    def _start(self) -> None:
        from sqlquarry.emulator.account import BedrockQuotas, PolicySimulator, create_role
        from sqlquarry.emulator.bedrock.runtime import BedrockRuntime
        from sqlquarry.emulator.moto import s3_objects, state
        from sqlquarry.emulator.moto.compatibility import check_moto
        from sqlquarry.emulator.moto.operations import Services, install
        from sqlquarry.emulator.moto.server import serve

        check_moto()
        state.reset_moto()
        account = state.choose_account()
        self._teardown.callback(state.reset_moto)
        storage = self._teardown.enter_context(temporary_storage())
        pool = self._new_pool()
        self._teardown.callback(pool.close)
        imports = self._model_imports(account, storage, pool)
        training = self._training_jobs(account, storage)

        def set_up_account() -> None:
            self.faults.clear()
            imports.reset()
            training.reset()
            self._role_arn = create_role(iam, self._role_name, self.bucket, account)
            s3.create_bucket(Bucket=self.bucket)

        services = Services(
            bedrock=imports,
            bedrock_runtime=BedrockRuntime(imports, pool, self.faults, self._sleep),
            sagemaker=training,
            iam=PolicySimulator(self.faults),
            service_quotas=BedrockQuotas(f"arn:aws:servicequotas:{self.region}:{account}"),
        )
        self._teardown.callback(s3_objects.install())
        self._teardown.callback(install(services, region=self.region, faults=self.faults, on_reset=set_up_account))
        self._key = AccessKey.random()
        self._endpoint_url = self._teardown.enter_context(
            serve(self._port, self.faults, account=account, key=self._key)
        )
        self._teardown.callback(training.close)
        session = self.session()
        iam, s3 = session.client("iam"), session.client("s3")
        set_up_account()
        self.faults.add(*self._first_faults)

    def _model_imports(self, account: str, storage: Path, pool: EnginePool) -> ModelImports:
        from sqlquarry.emulator.bedrock.control_plane import ModelImports
        from sqlquarry.emulator.moto.s3_objects import fetch_objects
        from sqlquarry.emulator.moto.state import role_trusts

        return ModelImports(
            storage=storage,
            fetch=partial(fetch_objects, account=account, region=self.region),
            role_trusts_bedrock=partial(role_trusts, "bedrock.amazonaws.com", account=account),
            on_delete=pool.discard,
            arn_prefix=f"arn:aws:bedrock:{self.region}:{account}",
            timing=self._timing,
            faults=self.faults,
            clock=self._clock,
        )

    def _training_jobs(self, account: str, storage: Path) -> TrainingJobs:
        from sqlquarry.emulator.moto.state import role_trusts
        from sqlquarry.emulator.sagemaker.operations import TrainingJobs

        return TrainingJobs(
            storage=storage,
            session=self.session,
            aws=self.environment,
            role_is_trusted=partial(role_trusts, "sagemaker.amazonaws.com", account=account),
            arn_prefix=f"arn:aws:sagemaker:{self.region}:{account}",
            region=self.region,
            faults=self.faults,
            clock=self._clock,
        )

    def _running(self, value: _Value | None) -> _Value:
        if value is None:
            raise EmulatorError("this LocalAWS is not running. Use it as a context manager: with LocalAWS() as aws: …")
        return value


def _check_bounds(integers: dict[str, tuple[int, int, int]], durations: dict[str, float]) -> None:
    bad = [
        f"{name} is {value!r}, but must be an integer from {low} to {high}"
        for name, (value, low, high) in integers.items()
        if not low <= value <= high
    ]
    bad += [
        f"{name} is {value!r}, but must be a number of seconds" for name, value in durations.items() if not value >= 0
    ]
    if bad:
        raise ConfigError("LocalAWS: " + "; ".join(bad))
