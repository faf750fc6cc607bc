"""Run a training job: ``trl_job.py job.json N``. It kills itself after the checkpoint of step N (0 for never).

accelerate silently uses DDP on CPUs. Here it is made to take the way that it takes on GPUs, for jobs under torchrun.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import accelerate.state
import torch
from accelerate.utils import DistributedType

from sqlquarry.training.__main__ import main
from sqlquarry.training.trl.checkpoints import TrainerCheckpoints


def force_fsdp() -> None:
    """Make accelerate use FSDP on CPUs."""
    stock = accelerate.state.AcceleratorState.__init__

    def init(
        self: Any, mixed_precision: Any = None, cpu: bool = False, *rest: Any, fsdp_plugin: Any = None, **options: Any
    ) -> None:
        stock(self, mixed_precision, cpu, *rest, fsdp_plugin=fsdp_plugin, **options)
        if fsdp_plugin is None or self.distributed_type != DistributedType.MULTI_CPU:
            return
        if self._mixed_precision != "no":
            fsdp_plugin.set_mixed_precision(self._mixed_precision)
        self.distributed_type, self.fsdp_plugin, self.device = DistributedType.FSDP, fsdp_plugin, torch.device("cpu")
        shared = accelerate.state.PartialState._shared_state
        shared.update(device=self.device, distributed_type=self.distributed_type)

    accelerate.state.AcceleratorState.__init__ = init


def kill_after(number: int) -> None:
    """Kill each process when the checkpoint of a step is complete."""
    stock = TrainerCheckpoints.mark_complete

    def mark(self: TrainerCheckpoints, step: int) -> None:
        stock(self, step)
        if step == number:
            os.kill(os.getpid(), signal.SIGKILL)

    TrainerCheckpoints.mark_complete = mark


if __name__ == "__main__":
    force_fsdp()
    kill_after(int(sys.argv[2]))
    sys.exit(main([sys.argv[1]]))
