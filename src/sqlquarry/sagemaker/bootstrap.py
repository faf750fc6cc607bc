"""The job's first program: verify the inputs, install what the `code` channel brings, and run the training.

It is a file in that channel and runs before the library is installed, so it uses the standard library alone (and the
image's boto3 if pip needs a secret). Its arguments are the digests of the channels, how many processes to start on each
host if not one for each GPU, and then the steps::

    code=<SHA-256> job=<SHA-256> train=<SHA-256> processes=2 install train

The digests are in the job's request, so who can write to the bucket, but cannot start jobs, cannot change what runs.

Source of the layout: "How Amazon SageMaker AI provides training information",
docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html. The SM_* variables come
from AWS's toolkit, whose place this entry point takes; if they are set, they count all the same.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType
from typing import NoReturn, NotRequired, TypedDict

ROOT = Path(os.environ.get("SQLQUARRY_ML_ROOT", "/opt/ml"))  # only the emulator sets the variable
CODE = ROOT / "input" / "data" / "code"
PORT = 7777  # of torchrun's meeting place on the first host
SECRETS = "SQLQUARRY_SECRET_ARNS"  # holds JSON: variable -> ARN of the secret with its value
PROCESSES = "processes"  # an argument: how many to start on each host, if there are not rows for all of its GPUs
PIP = "PIP_"  # begins pip's own variables; their secrets are for the installation alone


class JobHosts(TypedDict):
    """The machines of a job, as SageMaker describes them to each."""

    hosts: list[str]
    current_host: str
    network_interface_name: NotRequired[str]


def digest(files: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) over a channel's file names and the SHA-256 of each."""
    return hashlib.sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def verify(expected: Mapping[str, str]) -> None:
    """Compare every file of each channel with the digest in the job's request, and end the job at a difference.

    A file more, less or renamed is a difference as well.
    """
    for channel, wanted in expected.items():
        folder = ROOT / "input" / "data" / channel
        paths = [path for path in sorted(folder.rglob("*")) if path.is_file()]
        names = [path.relative_to(folder).as_posix() for path in paths]
        with ThreadPoolExecutor() as pool:
            found = dict(zip(names, pool.map(_sha256, paths), strict=True))
        # A line break in a name could make two files look like one.
        if any("\n" in name for name in names) or digest(found) != wanted:
            _fail(
                f"the files of the channel {channel} are not those that the launcher sent (SHA-256 {digest(found)}, "
                f"expected {wanted}): {', '.join(names)[:300]}. Somebody changed them on S3, so nothing was run. Find "
                "out who can write to the bucket, then launch again: the launcher sends what differs."
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def install() -> None:
    """Install the locked packages, each file by its SHA-256, then the wheel on top of them.

    In the emulator both are installed already.
    """
    _install("--require-hashes")


def install_without_hashes() -> None:
    """Install the pinned packages as the package index has them now; the user asked for it."""
    _install()


def _install(*options: str) -> None:
    if "SQLQUARRY_ML_ROOT" in os.environ:
        print("emulated: the library and its packages are those of the emulator", flush=True)
        return
    pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    # The container is ours alone; a pip that does not know the first variable ignores it. The secrets are in no later
    # program's environment, and in no arguments, which logs show.
    environment = {**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1", **_pip_secrets()}
    wheel = ["--no-deps", "--no-index", *map(str, CODE.glob("*.whl"))]
    for more, what in ((options, ["-r", str(CODE / "requirements.txt")]), ((), wheel)):
        ended = subprocess.run([*pip, *more, *what], check=False, env=environment)  # noqa: S603 - our own arguments
        if ended.returncode:
            _fail(
                f"pip install {' '.join(what)} ended with status {ended.returncode}; the log says why. In a VPC, the "
                "subnets need a way to a package index (a NAT gateway)."
            )


def _pip_secrets() -> dict[str, str]:
    """Return pip's variables whose values are secrets, such as PIP_INDEX_URL with the password of a private index."""
    arns = {name: arn for name, arn in json.loads(os.environ.get(SECRETS, "{}")).items() if name.startswith(PIP)}
    if not arns:
        return {}
    try:
        import boto3
        from botocore.exceptions import BotoCoreError, ClientError
    except ImportError:
        _fail(f"the image has no boto3, which reads {', '.join(arns)} for pip: take an image that has it")
    values = {}
    for name, arn in arns.items():
        try:
            client = boto3.session.Session().client("secretsmanager", region_name=arn.split(":")[3])
            values[name] = secret_text(client.get_secret_value(SecretId=arn)["SecretString"])
        except (BotoCoreError, ClientError) as error:
            _fail(
                f"reading {name} from {arn} failed: {error}. The job's role needs secretsmanager:GetSecretValue on it, "
                "and kms:Decrypt on its key."
            )
    return values


def secret_text(stored: str) -> str:
    """Return the value of a secret; of a JSON object of one name and value, as the console makes it, that value."""
    with contextlib.suppress(ValueError):
        found = json.loads(stored)
        if isinstance(found, dict) and len(found) == 1:
            return str(next(iter(found.values())))
    return stored.strip()


def train(limit: int | None = None) -> None:
    """Run ``python -m sqlquarry.sagemaker.container``, under torchrun for several processes, and end as it ends.

    SIGTERM (a spot notice, StopTrainingJob) is passed on; exit status 143 says that it was obeyed.
    """
    os.environ |= environment()
    command = [sys.executable, *program(limit), str(ROOT / "input" / "data" / "job" / "job.json")]
    print("starting", *command, flush=True)
    training = subprocess.Popen(command)  # noqa: S603 - our own arguments
    stopped: list[int] = []

    def pass_on(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 - its interface
        stopped.append(number)
        training.send_signal(number)

    signal.signal(signal.SIGTERM, pass_on)
    status = training.wait()
    if stopped and status:
        sys.exit(128 + signal.SIGTERM)  # torchrun itself ends with a traceback and status 1
    if status:
        _leave_failure(f"{' '.join(command)} ended with status {status} and left no reason; the log may say why")
    sys.exit(status if status >= 0 else 128 - status)


def program(limit: int | None = None) -> list[str]:
    """Return Python's arguments: the container's program, one process for each GPU, at most `limit` on each host."""
    cluster = resources()
    hosts, here = sorted(cluster["hosts"]), cluster["current_host"]
    processes = _gpus() or 1
    processes = min(processes, limit or processes)
    if len(hosts) * processes == 1:
        return ["-m", "sqlquarry.sagemaker.container"]
    meeting = ["--nnodes", str(len(hosts)), "--node-rank", str(hosts.index(here))]
    port = os.environ.get("SM_MASTER_PORT", str(PORT))
    meeting += ["--master-addr", hosts[0], "--master-port", port, "--nproc-per-node", str(processes)]
    return ["-m", "torch.distributed.run", *meeting, "-m", "sqlquarry.sagemaker.container"]


def _gpus() -> int:
    return int(os.environ.get("SM_NUM_GPUS") or 0) or len(list(Path("/dev").glob("nvidia[0-9]*")))


def environment() -> dict[str, str]:
    """Return variables for the training that the job does not set itself."""
    chosen = {
        "PYTHONUNBUFFERED": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108 - on the large volume, of a container that runs nothing else
        # Of the 120 s between SIGTERM and SIGKILL; torchrun before 2.13 does not know it and waits 30 s.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "110",
    }
    if not _gpus():  # threads that spin while they wait slow each other down
        chosen["OMP_WAIT_POLICY"] = "passive"
    if interface := resources().get("network_interface_name"):
        chosen |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    return {name: value for name, value in chosen.items() if name not in os.environ}


def _fail(reason: str) -> NoReturn:
    _leave_failure(reason)
    sys.exit(reason)


def _leave_failure(reason: str) -> None:
    """Write what the service shows as the reason, unless the program that failed has left its own."""
    (ROOT / "output").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (ROOT / "output" / "failure").open("x") as file:
        file.write(reason)


def resources() -> JobHosts:
    """Return the hosts of the job, this one and its network interface."""
    path = ROOT / "input" / "config" / "resourceconfig.json"
    if path.exists():
        described: JobHosts = json.loads(path.read_text())
        return described
    hosts = json.loads(os.environ.get("SM_HOSTS", '["algo-1"]'))
    return {"hosts": hosts, "current_host": os.environ.get("SM_CURRENT_HOST", hosts[0])}


if __name__ == "__main__":
    given = dict(word.split("=", 1) for word in sys.argv[1:] if "=" in word)
    limit = int(given.pop(PROCESSES, 0))
    verify(given)
    steps: dict[str, Callable[[], None]] = {"install": install, "install-without-hashes": install_without_hashes}
    steps["train"] = functools.partial(train, limit)
    for step in (word for word in sys.argv[1:] if "=" not in word):
        steps[step]()
