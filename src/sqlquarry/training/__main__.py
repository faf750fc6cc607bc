"""Train the job in a file on the processes that torchrun started: ``torchrun … -m sqlquarry.training job.yaml``.

The file (YAML or JSON) contains the arguments of `QLoRAFSDPTrainer` and its `train`:

    base_model: meta-llama/Meta-Llama-3-8B-Instruct   # directory, .gguf file, s3:// prefix or hub id
    train: train.jsonl                                # anything that load_records loads
    evaluation: evaluation.jsonl                      # optional
    output_dir: adapter
    checkpoint_dir: s3://bucket/checkpoints           # optional
    prompt: prompt/                                   # optional: a directory that PromptFormatter.save wrote
    config: {num_train_epochs: 2, lora_r: 16}         # fields of TrainingConfig

Exit status: 0 finished, 1 failed, 2 the file or an option is invalid, 143 stopped by a signal.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlquarry.data import load_records
from sqlquarry.errors import SQLQuarryError, TrainingInterruptedError
from sqlquarry.training.job import TrainingJobSpec
from sqlquarry.training.job_runner import run_job
from sqlquarry.training.launch import leave_failure


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    path: Path = _parser().parse_args(arguments).job
    status = 2
    try:
        job = TrainingJobSpec.read(path)
        status = 1
        run_job(job, load_records)
    except TrainingInterruptedError as error:
        leave_failure(error)
        sys.stderr.write(f"{error}\n")
        return 143
    except SQLQuarryError as error:
        leave_failure(error)
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return status
    except BaseException as error:
        leave_failure(error)
        raise
    return 0


def _parser() -> argparse.ArgumentParser:
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m sqlquarry.training",
        description=description,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", type=Path, metavar="JOB.yaml", help="the file with the job")
    return parser


if __name__ == "__main__":
    sys.exit(main())
