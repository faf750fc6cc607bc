"""The job's first program: verify the inputs, install the packages of the `code` channel, and run the training.

The `code` channel contains this file. It runs before the library is installed, so it uses only the standard library
(and the image's boto3 if pip needs a secret). Its arguments are the digests of the channels, the number of processes on
each host (without it, one for each GPU), and the steps::

    code=<SHA-256> job=<SHA-256> train=<SHA-256> processes=2 install train

The digests are part of the job's request. So somebody who can write to the bucket but cannot start jobs cannot change
the code that runs.

Source of the layout: "How Amazon SageMaker AI provides training information",
docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html. This program replaces
AWS's toolkit, which sets the SM_* variables. If they are set anyway, they are used.
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
PORT = 7777  # torchrun's rendezvous port on the first host
SECRETS = "SQLQUARRY_SECRET_ARNS"  # its value is JSON: variable -> ARN of the secret with its value
PROCESSES = "processes"  # argument: number of processes on each host, if there are not enough rows for all of its GPUs
PIP = "PIP_"  # prefix of pip's own variables, whose secrets are used only for the installation


class JobHosts(TypedDict):
    """The machines of a job, as SageMaker describes them to each machine."""

    hosts: list[str]
    current_host: str
    network_interface_name: NotRequired[str]


def digest(files: Mapping[str, str]) -> str:
    """Return the SHA-256 (hex) over a channel's file names and the SHA-256 of each."""
    return hashlib.sha256("".join(f"{name} {files[name]}\n" for name in sorted(files)).encode()).hexdigest()


def verify(expected: Mapping[str, str]) -> None:
    """Compare each channel with its digest in the job's request, and end the job if they differ.

    An additional, missing or renamed file is a difference too.
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
                f"the files of the channel {channel} differ from those that the launcher sent (SHA-256 "
                f"{digest(found)}, expected {wanted}): {', '.join(names)[:300]}. Somebody changed them on S3, so "
                "nothing was run. Find out who can write to the bucket, then launch again. The launcher sends the "
                "changed files again."
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
    """Install the pinned packages without checking hashes, because the user chose this."""
    _install()


def _install(*options: str) -> None:
    if "SQLQUARRY_ML_ROOT" in os.environ:
        print("emulated: the job uses the emulator's library and packages", flush=True)
        return
    pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check", "--no-input"]
    # Nothing else runs in the container, so pip may break system packages. An older pip ignores the variable. Secrets
    # are not passed as arguments, because logs show those, and later programs do not get them.
    environment = {**os.environ, "PIP_BREAK_SYSTEM_PACKAGES": "1", **_pip_secrets()}
    wheel = ["--no-deps", "--no-index", *map(str, CODE.glob("*.whl"))]
    for more, what in ((options, ["-r", str(CODE / "requirements.txt")]), ((), wheel)):
        ended = subprocess.run([*pip, *more, *what], check=False, env=environment)  # noqa: S603 - our own arguments
        if ended.returncode:
            _fail(
                f"pip install {' '.join(what)} ended with status {ended.returncode}. The log says why. In a VPC, the "
                "subnets need access to a package index (a NAT gateway)."
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
        _fail(f"the image has no boto3, which is needed to read {', '.join(arns)} for pip. Use an image with boto3.")
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
    """Return the value of a secret. If it is a JSON object with one key, as from the AWS console, return its value."""
    with contextlib.suppress(ValueError):
        found = json.loads(stored)
        if isinstance(found, dict) and len(found) == 1:
            return str(next(iter(found.values())))
    return stored.strip()


def train(limit: int | None = None) -> None:
    """Run ``python -m sqlquarry.sagemaker.container``, with torchrun if there are several processes, and then exit.

    The exit status is the program's. SIGTERM (a spot notice or StopTrainingJob) is passed on to the program. If the
    program then ends with a status other than 0, the exit status is 143.
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
        sys.exit(128 + signal.SIGTERM)  # torchrun itself exits with a traceback and status 1
    if status:
        _leave_failure(f"{' '.join(command)} ended with status {status} without a reason. The log may say why.")
    sys.exit(status if status >= 0 else 128 - status)


def program(limit: int | None = None) -> list[str]:
    """Return Python's arguments to run the container's program once for each GPU, at most `limit` times on a host."""
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
    """Return environment variables for the training, without those that are already set."""
    chosen = {
        "PYTHONUNBUFFERED": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108 - it is on the large volume, and nothing else runs here
        # There are 120 s between SIGTERM and SIGKILL. torchrun before 2.13 ignores the variable and waits 30 s.
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
    """Write the failure reason for SageMaker, unless the failed program has already written one."""
    (ROOT / "output").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (ROOT / "output" / "failure").open("x") as file:
        file.write(reason)


def resources() -> JobHosts:
    """Return the job's hosts, the name of this host, and its network interface."""
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
