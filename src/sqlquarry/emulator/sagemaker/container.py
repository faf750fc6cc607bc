"""Run one instance of a training job: `/opt/ml` in a directory, and the entry point as a process of this interpreter.

Layout, files and signals: "How Amazon SageMaker AI Runs Your Training Image" and "How Amazon SageMaker AI Provides
Training Information" (developer guide); SM_* variables: ENVIRONMENT_VARIABLES.md of the SageMaker Training Toolkit.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.openmp import WAIT_POLICY

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef

ROOT = "/opt/ml"
ROOT_VARIABLE = "SQLQUARRY_ML_ROOT"
PROGRAM = re.compile(r"(.*/)?python(3(\.\d+)?)?")  # an image's other programs are not here
_NETWORK = "lo"
_PATH = "/usr/local/bin:/usr/bin:/bin"
# PR_SET_PDEATHSIG: the entry point gets SIGTERM where this process is killed and can end nothing any more.
_TIED = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Cluster:
    """What the instances of one job share.

    Args:
        arn: the job's ARN.
        parameters: of CreateTrainingJob.
        hosts: the instances' names, which resolve.
        port: a free port for the first of them.
        aws: environment variables that lead AWS clients to the emulator.
    """

    arn: str
    parameters: CreateTrainingJobRequestTypeDef
    hosts: tuple[str, ...]
    port: int
    aws: Mapping[str, str] = field(repr=False)


class Container:
    """One instance.

    Args:
        cluster: the job's.
        rank: the instance's place among its hosts.
        directory: becomes its file system; nothing of it is written elsewhere.
    """

    def __init__(self, cluster: Cluster, rank: int, directory: Path) -> None:
        self._cluster, self.rank = cluster, rank
        self._directory = directory
        self.root = directory / "ml"
        self._log = directory / "log"
        self._log_end = 0
        self._process: subprocess.Popen[bytes] | None = None
        for name in ("ml/model", "ml/output/data", "ml/input/config", "ml/input/data", "ml/checkpoints", "home", "tmp"):
            (directory / name).mkdir(parents=True)
        for name, content in self._configuration().items():
            (self.root / "input/config" / f"{name}.json").write_text(json.dumps(content))

    def channel(self, name: str) -> Path:
        """Return the directory of a channel's files."""
        return self.root / "input/data" / name

    def local(self, path: str) -> str:
        """Return a text of the request, with this instance's own `/opt/ml`."""
        return path.replace(ROOT, str(self.root))

    def start(self) -> None:
        """Start the entry point, with its output in a file."""
        algorithm = self._cluster.parameters["AlgorithmSpecification"]
        arguments = [*algorithm["ContainerEntrypoint"][1:], *algorithm.get("ContainerArguments", [])]
        tie = [sys.executable, "-ISc", _TIED] if sys.platform == "linux" else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - what the request names, on this interpreter
                [*tie, sys.executable, *map(self.local, arguments)],
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_status(self) -> int | None:
        """The exit status of the entry point, as a shell gives it (143 after SIGTERM); None while it runs."""
        code = self._process.poll() if self._process else None
        return 128 - code if code is not None and code < 0 else code

    @property
    def failure(self) -> str:
        """What the entry point wrote of its failure."""
        with suppress(OSError):
            return (self.root / "output/failure").read_text(errors="replace").strip()
        return ""

    def new_lines(self) -> list[str]:
        """Return what was written to the log since the last call, in whole lines; after the end, all of it."""
        ended = self.exit_status is not None  # before reading: what is written later would be lost else
        with suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(self._log_end)
            text = log.read()
            whole = len(text) if ended else text.rfind(b"\n") + 1
            self._log_end += whole
            lines = text[:whole].decode(errors="replace").split("\n")
            return [line.rstrip("\r") for line in lines if line.strip()]
        return []

    def terminate(self) -> None:
        """Send SIGTERM as `docker stop` does: to the entry point alone."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End every process of this instance, also those that made sessions of their own (torchrun's workers do)."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # without /proc, this is all that can be done
            self._process.wait()
        while found := _processes_marked(f"{ROOT_VARIABLE}={self.root}".encode()):
            for pid in found:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)

    def _configuration(self) -> dict[str, object]:
        parameters, hosts = self._cluster.parameters, list(self._cluster.hosts)
        resources = parameters["ResourceConfig"]
        group = "homogeneousCluster"
        return {
            "hyperparameters": parameters.get("HyperParameters", {}),
            "inputdataconfig": {
                channel["ChannelName"]: {
                    "TrainingInputMode": "File",
                    "S3DistributionType": channel["DataSource"]["S3DataSource"].get(
                        "S3DataDistributionType", "FullyReplicated"
                    ),
                    "RecordWrapperType": "None",
                }
                for channel in parameters.get("InputDataConfig", [])
            },
            "resourceconfig": {
                "current_host": hosts[self.rank],
                "current_instance_type": resources["InstanceType"],
                "current_group_name": group,
                "hosts": hosts,
                "instance_groups": [
                    {"instance_group_name": group, "instance_type": resources["InstanceType"], "hosts": hosts}
                ],
                "network_interface_name": _NETWORK,
            },
        }

    def _environment(self) -> dict[str, str]:
        """Return the whole environment; no secret, setting or path of this process's own environment goes in."""
        parameters, hosts = self._cluster.parameters, self._cluster.hosts
        channels = [channel["ChannelName"] for channel in parameters.get("InputDataConfig", [])]
        hyperparameters = parameters.get("HyperParameters", {})
        given = {name: self.local(value) for name, value in parameters.get("Environment", {}).items()}
        return (
            given
            | {f"SM_CHANNEL_{name.upper().replace('-', '_')}": str(self.channel(name)) for name in channels}
            | {f"SM_HP_{name.upper()}": value for name, value in hyperparameters.items()}
            | {
                "SM_CHANNELS": json.dumps(channels),
                "SM_HPS": json.dumps(hyperparameters),
                "SM_HOSTS": json.dumps(list(hosts)),
                "SM_CURRENT_HOST": hosts[self.rank],
                "SM_NUM_GPUS": "0",
                "SM_NUM_CPUS": str(os.cpu_count() or 1),
                "SM_NETWORK_INTERFACE_NAME": _NETWORK,
                "SM_MASTER_ADDR": hosts[0] if len(hosts) > 1 else "127.0.0.1",
                "SM_MASTER_PORT": str(self._cluster.port),
                "SM_MODEL_DIR": str(self.root / "model"),
                "SM_INPUT_DIR": str(self.root / "input"),
                "SM_INPUT_CONFIG_DIR": str(self.root / "input/config"),
                "SM_OUTPUT_DIR": str(self.root / "output"),
                "SM_OUTPUT_DATA_DIR": str(self.root / "output/data"),
                "TRAINING_JOB_NAME": parameters["TrainingJobName"],
                "TRAINING_JOB_ARN": self._cluster.arn,
                ROOT_VARIABLE: str(self.root),
                "PATH": _PATH,
                "HOME": str(self._directory / "home"),
                "TMPDIR": str(self._directory / "tmp"),
                "HF_HOME": str(self._directory / "home/huggingface"),
                "LANG": "C.UTF-8",
                "PYTHONUNBUFFERED": "1",  # a log that shows lines when they are printed
                "CUDA_VISIBLE_DEVICES": "",
                "GLOO_SOCKET_IFNAME": _NETWORK,
                # From the host: how much of its processors it lets a process take, and how threads wait for each other.
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")
                or str(max(1, (os.cpu_count() or 1) // len(hosts))),
                WAIT_POLICY: os.environ.get(WAIT_POLICY, "passive"),
            }
            | dict(self._cluster.aws)
        )


def _processes_marked(mark: bytes) -> Sequence[int]:
    """Return processes whose environment at their start held `mark`, whatever their session or parent is now."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # it has ended, or is another user's
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
