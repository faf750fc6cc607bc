"""Train with two processes on one GPU, started by torchrun: ``two_on_one_gpu.py JOB [STORAGE_DTYPE]``.

NCCL refuses two processes on one GPU, so they communicate with gloo. FSDP2 and its copies on the GPU are the same as on
two GPUs. gloo waits for the CPU, so rows cannot run as CUDA graphs, which they do with NCCL.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path

import torch
import torch.distributed

from sqlquarry.data import load_records
from sqlquarry.training import TrainingConfig
from sqlquarry.training.job import TrainingJobSpec
from sqlquarry.training.job_runner import run_job
from sqlquarry.training.steps import adapted_model
from sqlquarry.training.steps.world import World


def join(device: str, *, cpu_collectives: bool = False) -> World:  # noqa: ARG001 - gloo has them
    rank, size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    torch.distributed.init_process_group("gloo")
    return World(rank, size, size, torch.device(device, 0), is_joined=True)


World.join = join  # type: ignore[method-assign]  # in this process only
TrainingConfig.uses_cuda_graphs = lambda *_, **__: False  # type: ignore[method-assign]  # see above
if len(sys.argv) > 2:
    adapted_model.QuantizationRecipe = functools.partial(  # type: ignore[misc]  # see above
        adapted_model.QuantizationRecipe, storage_dtype=sys.argv[2]
    )
run_job(TrainingJobSpec.read(Path(sys.argv[1])), load_records)
