"""A training job that torchrun starts on this machine, whose processes take themselves for those of two machines."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from sqlquarry.training.job import run_job

os.environ["LOCAL_WORLD_SIZE"] = str(int(os.environ["WORLD_SIZE"]) // 2)
run_job(Path(sys.argv[1]))
