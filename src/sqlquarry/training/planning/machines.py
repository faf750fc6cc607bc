"""The machines that a run is planned for: this one, a GPU by name, or SageMaker instances."""

from __future__ import annotations

import dataclasses
import gc
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.pretrained import pick_device
from sqlquarry.training.config import Auto, TrainingConfig
from sqlquarry.training.planning.hardware import A10G, GPU, GPUS, gpu_named, instance_named


@dataclass(frozen=True, slots=True, kw_only=True)
class Machines:
    """What a run is planned for.

    Args:
        instance_type: a SageMaker instance ("ml.g5.12xlarge"); names GPU, processes and price. None for
            another machine.
        gpu: without an instance type, a GPU by name ("H100") or "cpu"; "auto" takes this machine's GPU, or its CPU.
        processes: "auto" starts one for each GPU of the instances, but no more than there are rows for; without an
            instance type 1.
        instances: machines of that type.
        usd_per_hour: US dollars for one instance; None if not given: the table's price counts, if it has one.
    """

    instance_type: str | None = None
    gpu: str = "auto"
    processes: int | Auto = "auto"
    instances: int = 1
    usd_per_hour: float | None = None

    @property
    def is_here(self) -> bool:
        """Whether the run is planned for this machine."""
        return self.instance_type is None and self.gpu == "auto"

    @property
    def price(self) -> float | None:
        """US dollars an hour for one instance; None if no price is known."""
        if self.usd_per_hour is None and self.instance_type is not None:
            return instance_named(self.instance_type).usd_per_hour
        return self.usd_per_hour

    def find_gpus(self, config: TrainingConfig) -> tuple[GPU | None, int]:
        """Return what a process computes with (None is a CPU) and the number of GPUs of all machines.

        Raises:
            ConfigError: an unknown instance type or GPU, or processes that cannot be spread evenly over the instances.
            DeviceError: as `this_machine`.
        """
        gpu, count = self._find_gpu(config)
        processes = count if self.processes == "auto" else self.processes
        if self.instances < 1 or processes % self.instances:
            raise ConfigError(
                f"{processes} processes on {self.instances} instances: each instance must run the same number of "
                "processes"
            )
        return gpu, count

    def count_processes(self, gpus: int, rows_per_step: int) -> int:
        """Return how many processes start."""
        if self.processes != "auto":
            return self.processes
        return self.instances * max(1, min(gpus, rows_per_step) // self.instances)

    def _find_gpu(self, config: TrainingConfig) -> tuple[GPU | None, int]:
        if self.instance_type is not None:
            instance = instance_named(self.instance_type)
            return instance.gpu, instance.gpus * self.instances
        if self.gpu == "auto":
            return this_machine(config), 1
        if self.gpu == "cpu":
            return None, 1
        if found := gpu_named(str(self.gpu)):
            return found, 1
        known = ", ".join([*(one.name for one in GPUS), "cpu", "auto"])
        raise ConfigError(f"gpu {self.gpu!r} is not known here. Known: {known}.")


def gpus_here(config: TrainingConfig) -> int | None:
    """Return how many GPUs this machine has for training; None if it trains on its CPU."""
    import torch

    return torch.cuda.device_count() if pick_device(config.device) == "cuda" else None


def this_machine(config: TrainingConfig) -> GPU | None:
    """Return this machine's GPU with the memory that is free on it; None for its CPU.

    A GPU whose name is not in the table is taken to be as fast as an A10G.

    Raises:
        DeviceError: the configuration asks for CUDA, and there is none.
    """
    import torch

    if pick_device(config.device) == "cpu":
        return None
    name = torch.cuda.get_device_name()
    gc.collect()  # an earlier model may be held by reference cycles
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    known = gpu_named(name) or dataclasses.replace(A10G, name=name, has_bf16=has_bf16)
    return dataclasses.replace(known, memory_bytes=free)
