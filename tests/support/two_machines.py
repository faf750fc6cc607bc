"""Run a training job under torchrun on this machine, but with processes that behave as if on two machines.

``two_machines.py JOB JOB`` takes one job file per machine, so that each machine can have its own disk. Only rank 0 can
encode records.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sqlquarry.data import load_records
from sqlquarry.prompt import PromptFormatter
from sqlquarry.training.job import TrainingJobSpec
from sqlquarry.training.job_runner import run_job

if os.environ["RANK"] != "0":
    del PromptFormatter.encode_all
local_size = int(os.environ["WORLD_SIZE"]) // 2
os.environ["LOCAL_WORLD_SIZE"] = str(local_size)
run_job(TrainingJobSpec.read(Path(sys.argv[1 + int(os.environ["RANK"]) // local_size])), load_records)
