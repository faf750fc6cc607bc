"""``torchrun … -m sqlquarry.training job.yaml``: train as a file says, on as many processes as torchrun started.

The file (YAML or JSON) names what `QLoRAFSDPTrainer` and its `train` take:

    base_model: meta-llama/Meta-Llama-3-8B-Instruct   # directory, .gguf file or hub id
    train: train.jsonl                                # anything that load_records reads
    evaluation: evaluation.jsonl                      # optional
    output_dir: adapter
    checkpoint_dir: s3://bucket/checkpoints           # optional
    prompt: prompt/                                   # optional: a directory that PromptFormatter.save wrote
    config: {epochs: 2, rank: 16}                     # fields of TrainingConfig
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from sqlquarry.errors import SQLQuarryError, TrainingInterruptedError
from sqlquarry.training.job import run_job
from sqlquarry.training.launch import leave_failure


def main(arguments: Sequence[str]) -> int:
    """Train; the exit status says how it ended: 0 finished, 1 failed, 143 stopped by a signal."""
    if len(arguments) != 1:
        sys.stderr.write(f"usage: python -m sqlquarry.training JOB.yaml\n\n{__doc__}")
        return 2
    try:
        run_job(Path(arguments[0]))
    except TrainingInterruptedError as error:
        leave_failure(error)
        sys.stderr.write(f"{error}\n")
        return 143
    except SQLQuarryError as error:
        leave_failure(error)
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except BaseException as error:
        leave_failure(error)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
