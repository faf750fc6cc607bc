"""The machines that a run can be planned for: this machine, a GPU given by name, or SageMaker instances."""

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
    """The machines that a run is planned for.

    Args:
        instance_type: a SageMaker instance type ("ml.g5.12xlarge"), which determines GPU, processes and price. None
            for any other machine.
        gpu: without an instance type, the name of a GPU ("H100") or "cpu". "auto" uses this machine's GPU, or its CPU
            if it has no GPU.
        processes: "auto" starts one per GPU, but not more than a step has rows. Without an instance type that is 1.
        instances: number of instances of that type.
        usd_per_hour: price of one instance in US dollars per hour. None uses the price table, if it lists the type.
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
        """Price of one instance in US dollars per hour, or None if it is not known."""
        if self.usd_per_hour is None and self.instance_type is not None:
            return instance_named(self.instance_type).usd_per_hour
        return self.usd_per_hour

    def find_gpus(self, config: TrainingConfig) -> tuple[GPU | None, int]:
        """Return the GPU that each process computes on (None for a CPU) and the number of GPUs of all machines.

        Raises:
            ConfigError: the instance type or GPU is unknown, or the processes cannot be spread evenly over the
                instances.
            DeviceError: see `this_machine`.
        """
        gpu, count = self._find_gpu(config)
        processes = count if self.processes == "auto" else self.processes
        if self.instances < 1 or processes % self.instances:
            raise ConfigError(
                f"{processes} processes cannot be spread evenly over {self.instances} instances. Use a multiple of "
                f"{self.instances}."
            )
        return gpu, count

    def count_processes(self, gpus: int, rows_per_step: int) -> int:
        """Return the number of processes to start."""
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
        raise ConfigError(f"unknown gpu {self.gpu!r}. Use one of: {known}.")


def gpus_here(config: TrainingConfig) -> int | None:
    """Return the number of GPUs that this machine trains on, or None if it trains on its CPU."""
    import torch

    return torch.cuda.device_count() if pick_device(config.device) == "cuda" else None


def this_machine(config: TrainingConfig) -> GPU | None:
    """Return this machine's GPU with its free memory, or None if training runs on the CPU.

    A GPU that is not in the table is assumed to be as fast as an A10G.

    Raises:
        DeviceError: the configuration requires CUDA, but torch sees no CUDA device.
    """
    import torch

    if pick_device(config.device) == "cpu":
        return None
    name = torch.cuda.get_device_name()
    gc.collect()  # reference cycles may keep an earlier model alive
    free = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved() - torch.cuda.memory_allocated()
    has_bf16 = torch.cuda.is_bf16_supported(including_emulation=False)
    known = gpu_named(name) or dataclasses.replace(A10G, name=name, has_bf16=has_bf16)
    return dataclasses.replace(known, memory_bytes=free)
