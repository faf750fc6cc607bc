"""Run one instance of a training job, with `/opt/ml` in a directory and the entry point as a Python process.

Sources: "How Amazon SageMaker AI Runs Your Training Image" and "How Amazon SageMaker AI Provides Training Information"
(developer guide) for layout, files and signals, ENVIRONMENT_VARIABLES.md of the SageMaker Training Toolkit for SM_*.
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
from sqlquarry.training.launch import LOOPBACK

if TYPE_CHECKING:
    from mypy_boto3_sagemaker.type_defs import CreateTrainingJobRequestTypeDef

ROOT = "/opt/ml"
ROOT_VARIABLE = "SQLQUARRY_ML_ROOT"
PROGRAM = re.compile(r"(.*/)?python(3(\.\d+)?)?")  # there is no image, so other programs are not available
_PATH = "/usr/local/bin:/usr/bin:/bin"
# PR_SET_PDEATHSIG (1): the kernel sends SIGTERM to the entry point if this process is killed and cannot do it itself.
_DIE_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True, slots=True)
class Cluster:
    """The data that the instances of one job share.

    Args:
        arn: ARN of the job.
        parameters: parameters of CreateTrainingJob.
        hosts: host names of the instances, which can be resolved.
        port: free port for the first instance.
        aws: environment variables that make AWS clients use the emulator.
    """

    arn: str
    parameters: CreateTrainingJobRequestTypeDef
    hosts: tuple[str, ...]
    port: int
    aws: Mapping[str, str] = field(repr=False)


class Container:
    """One instance of a training job.

    Args:
        cluster: data of the job's cluster.
        rank: index of the instance in the cluster's hosts.
        directory: directory for the instance's file system. All its files are below it.
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
        """Return the directory with a channel's files."""
        return self.root / "input/data" / name

    def local(self, path: str) -> str:
        """Replace `/opt/ml` in a text of the request by this instance's own directory."""
        return path.replace(ROOT, str(self.root))

    def start(self) -> None:
        """Start the entry point and write its output to a file."""
        algorithm = self._cluster.parameters["AlgorithmSpecification"]
        arguments = [*algorithm["ContainerEntrypoint"][1:], *algorithm.get("ContainerArguments", [])]
        prefix = [sys.executable, "-ISc", _DIE_WITH_PARENT] if sys.platform == "linux" else []
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - arguments of the request for this interpreter
                [*prefix, sys.executable, *map(self.local, arguments)],
                cwd=self.root,
                env=self._environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def exit_status(self) -> int | None:
        """The exit status of the entry point as in a shell (143 after SIGTERM), or None while it runs."""
        code = self._process.poll() if self._process else None
        return 128 - code if code is not None and code < 0 else code

    @property
    def failure(self) -> str:
        """The failure message that the entry point has written, or "" if there is none."""
        with suppress(OSError):
            return (self.root / "output/failure").read_text(errors="replace").strip()
        return ""

    def new_lines(self) -> list[str]:
        """Return the complete lines that were written to the log since the last call.

        After the process has ended, an incomplete last line is included.
        """
        ended = self.exit_status is not None  # must come before reading, so that no later output is lost
        with suppress(FileNotFoundError), self._log.open("rb") as log:
            log.seek(self._log_end)
            text = log.read()
            size = len(text) if ended else text.rfind(b"\n") + 1
            self._log_end += size
            lines = text[:size].decode(errors="replace").split("\n")
            return [line.rstrip("\r") for line in lines if line.strip()]
        return []

    def terminate(self) -> None:
        """Send SIGTERM to the entry point only, as `docker stop` does."""
        if self._process and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Kill every process of this instance, including those in their own sessions, such as torchrun's workers."""
        if self._process is None:
            return
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # without /proc, this is all that is possible
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
                "network_interface_name": LOOPBACK,
            },
        }

    def _environment(self) -> dict[str, str]:
        """Return the complete environment. It contains no secrets, settings or paths of this process's environment."""
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
                "SM_NETWORK_INTERFACE_NAME": LOOPBACK,
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
                "PYTHONUNBUFFERED": "1",  # so that the log shows lines as soon as they are printed
                "CUDA_VISIBLE_DEVICES": "",
                "GLOO_SOCKET_IFNAME": LOOPBACK,
                # Taken from the host: the number of threads per process, and how threads wait for each other.
                "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS")
                or str(max(1, (os.cpu_count() or 1) // len(hosts))),
                WAIT_POLICY: os.environ.get(WAIT_POLICY, "passive"),
            }
            | dict(self._cluster.aws)
        )


def _processes_marked(mark: bytes) -> Sequence[int]:
    """Return the processes that were started with `mark` in their environment, in any session and under any parent."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # the process has ended, or belongs to another user
            if mark in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
