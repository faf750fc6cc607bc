"""The job's first program: installs what the `code` channel brings, then runs the training on all of its GPUs.

It lies in that channel as a file and runs before the library is there, so it uses the standard library alone:
``python3 /opt/ml/input/data/code/bootstrap.py install train``, each word one step.

Source of the layout: "How Amazon SageMaker AI provides training information",
docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html. The SM_* variables come
from AWS's toolkit, whose place this entry point takes; they count where they are there all the same.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(os.environ.get("SQLQUARRY_ML_ROOT", "/opt/ml"))  # only the emulator sets the variable
CODE = ROOT / "input" / "data" / "code"
PORT = 7777  # of torchrun's meeting place on the first host


def install() -> None:
    """Install the pinned packages, then the wheel on top of them; in the emulator both are there already."""
    if "SQLQUARRY_ML_ROOT" in os.environ:
        print("emulated: the library and its packages are those of the emulator", flush=True)
        return
    pip = [sys.executable, "-m", "pip", "install", "--no-cache-dir", "--disable-pip-version-check"]
    os.environ["PIP_BREAK_SYSTEM_PACKAGES"] = "1"  # the container is ours alone; a pip that does not know it goes on
    for what in (["-r", str(CODE / "requirements.txt")], ["--no-deps", *map(str, CODE.glob("*.whl"))]):
        ended = subprocess.run([*pip, *what], check=False)  # noqa: S603 - our own arguments
        if ended.returncode:
            failure = (
                f"pip install {' '.join(what)} ended with status {ended.returncode}; the log says why. In a VPC, the "
                "subnets need a way to a package index (a NAT gateway)."
            )
            _leave_failure(failure)
            sys.exit(failure)


def train() -> None:
    """Run ``python -m sqlquarry.container``, under torchrun where there are several processes, and end as it ends.

    SIGTERM (a spot notice, StopTrainingJob) is passed on; exit status 143 says that it was obeyed.
    """
    os.environ |= environment()
    command = [sys.executable, *program(), str(ROOT / "input" / "data" / "job" / "job.json")]
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


def program() -> list[str]:
    """Python's arguments: the container's program, one process for each GPU of each host."""
    cluster = resources()
    hosts, here = sorted(cluster["hosts"]), cluster["current_host"]
    gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    processes = int(os.environ.get("SM_NUM_GPUS") or 0) or gpus or 1
    if len(hosts) * processes == 1:
        return ["-m", "sqlquarry.container"]
    meeting = ["--nnodes", str(len(hosts)), "--node-rank", str(hosts.index(here))]
    port = os.environ.get("SM_MASTER_PORT", str(PORT))
    meeting += ["--master-addr", hosts[0], "--master-port", port, "--nproc-per-node", str(processes)]
    return ["-m", "torch.distributed.run", *meeting, "-m", "sqlquarry.container"]


def environment() -> dict[str, str]:
    """Variables of the training, where the job sets none of its own."""
    chosen = {
        "PYTHONUNBUFFERED": "1",
        "HF_HOME": "/tmp/huggingface",  # noqa: S108 - on the large volume, of a container that runs nothing else
        # Of the 120 s between SIGTERM and SIGKILL; torchrun before 2.13 does not know it and waits 30 s.
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "110",
    }
    if interface := resources().get("network_interface_name"):
        chosen |= {"NCCL_SOCKET_IFNAME": interface, "GLOO_SOCKET_IFNAME": interface}
    return {name: value for name, value in chosen.items() if name not in os.environ}


def _leave_failure(reason: str) -> None:
    """What the service shows as the reason, unless the program that failed has left its own."""
    (ROOT / "output").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (ROOT / "output" / "failure").open("x") as file:
        file.write(reason)


def resources() -> dict[str, Any]:
    """The hosts of the job, this one and its network interface."""
    path = ROOT / "input" / "config" / "resourceconfig.json"
    if path.exists():
        return dict(json.loads(path.read_text()))
    hosts = json.loads(os.environ.get("SM_HOSTS", '["algo-1"]'))
    return {"hosts": hosts, "current_host": os.environ.get("SM_CURRENT_HOST", hosts[0])}


if __name__ == "__main__":
    steps = {"install": install, "train": train}
    for step in sys.argv[1:]:
        steps[step]()
