"""Train, merge and verify inside a SageMaker training job.

Run as ``python -m sqlquarry.sagemaker.container /opt/ml/input/data/job/job.json``.

One process for each GPU trains. The first process then merges, verifies, and writes to ``/opt/ml/model``

    adapter/    the output of QLoRAFSDPTrainer
    merged/     the full model in the form that Bedrock reads, unless the job contains ``"merge": null``

Both have a manifest, which is written last. SageMaker copies that folder to S3 uncompressed, and syncs
``/opt/ml/checkpoints`` in both directions, so a job resumes after an interruption or a failure after training.

job.json contains `base_model` (a hub id, or null if the base model is in the channel `model`), `config` (fields of
TrainingConfig) and `merge` (``{"base": "auto"}`` or null). ``prompt.json`` is in the same folder.

Source of the layout: docs.aws.amazon.com/sagemaker/latest/dg/your-algorithms-training-algo-running-container.html.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.aws import aws_client
from sqlquarry.bedrock.export.model_export import ModelExport
from sqlquarry.data import load_records
from sqlquarry.errors import (
    ArtifactError,
    IncompleteArtifactError,
    SQLQuarryError,
    TrainingInterruptedError,
    UnsupportedModelError,
)
from sqlquarry.files.metadata import parse_object
from sqlquarry.files.writing import write_atomically
from sqlquarry.manifests import MANIFEST, Manifest
from sqlquarry.merging import AdapterMerger, Thresholds, require_thresholds
from sqlquarry.sagemaker.bootstrap import PIP, SECRETS, secret_text
from sqlquarry.sagemaker.container_job import ContainerJob, only_file
from sqlquarry.sagemaker.failures import training_error
from sqlquarry.sagemaker.metrics import echoed
from sqlquarry.training.base.base_model import resolve_base_model
from sqlquarry.training.job import TrainingJobSpec
from sqlquarry.training.job_runner import run_job

_VERIFIED_RECORDS = 16  # a record takes a second for 8B on a large CPU, and 16 are enough (see AdapterMerger.verify)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the job and return its exit status: 0 if it finished, 1 if it failed, 143 if a signal stopped it."""
    job: Path = _parser().parse_args(arguments).job
    root = Path(os.environ.get("SQLQUARRY_ML_ROOT", "/opt/ml"))
    try:
        run(job, root)
    except TrainingInterruptedError as error:
        sys.stderr.write(f"{error}\n")
        return 143
    except SQLQuarryError as error:
        _leave_failure(root, error)
        sys.stderr.write(f"{type(error).__name__}: {error}\n")
        return 1
    except BaseException as error:
        _leave_failure(root, error)
        raise
    return 0


def _parser() -> argparse.ArgumentParser:
    description, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m sqlquarry.sagemaker.container",
        description=description,
        epilog=f"{details}\nExit status: 0 finished, 1 failed, 2 wrong options, 143 stopped by a signal.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("job", type=Path, metavar="JOB.json", help="the job")
    return parser


def run(job_file: Path, root: Path) -> None:
    """Train, and in the first process also merge.

    Args:
        job_file: the job.
        root: ``/opt/ml``, or the folder that an emulator uses instead.

    Raises:
        SQLQuarryError: a stage failed.
    """
    job = ContainerJob.read(job_file)
    is_rank0 = os.environ.get("RANK", "0") == "0"
    _provide_secrets()
    channel = root / "input" / "data" / "model"
    base = str(channel) if channel.is_dir() else job.base_model or ""
    adapter = _earlier_adapter(root)
    if adapter is None:
        adapter = _trained(job.spec(root, base_model=base, prompt=job_file.parent), root, is_rank0=is_rank0)
    if is_rank0 and adapter and job.merge:
        _merged(adapter, AdapterMerger(base=job.merge, base_model=resolve_base_model(base)), root)


def _trained(job: TrainingJobSpec, root: Path, *, is_rank0: bool) -> AdapterCheckpoint | None:
    """Return the new adapter, or None on a machine that does not write it."""
    try:
        with echoed(Path(job.output_dir) / "training_log.jsonl") if is_rank0 else contextlib.nullcontext():
            adapter = run_job(job, load_records)
    except IncompleteArtifactError:
        if is_rank0:
            raise
        return None  # the adapter is on the first machine
    if is_rank0:
        # Training is the expensive part. If the merge fails, the next attempt starts with this adapter.
        _copied(adapter.path, root / "checkpoints" / "adapter")
    return adapter


def _earlier_adapter(root: Path) -> AdapterCheckpoint | None:
    """Copy the adapter of an earlier finished attempt to the results and return it, or None if there is none."""
    kept, output = root / "checkpoints" / "adapter", root / "model" / "adapter"
    try:
        AdapterCheckpoint.load(kept, verify=True)
    except ArtifactError:  # there is no adapter, or its copy is incomplete
        return None
    print(f"an earlier attempt finished the training, so its adapter in {kept} is used", flush=True)
    if os.environ.get("RANK", "0") == "0":
        _copied(kept, output)
    return AdapterCheckpoint.load(kept)


def _merged(adapter: AdapterCheckpoint, merger: AdapterMerger, root: Path) -> None:
    """Merge, verify, and rewrite the result in place in the form that Bedrock reads."""
    output = root / "model" / "merged"
    merged = merger.merge(adapter, output)
    records = root / "input" / "data" / ("evaluation" if (root / "input" / "data" / "evaluation").is_dir() else "train")
    verification: dict[str, object] | None = None
    try:
        found = merger.verify(load_records(str(only_file(records)), limit=_VERIFIED_RECORDS), adapter, merged)
        require_thresholds(found, Thresholds())
        verification = dataclasses.asdict(found)
    except UnsupportedModelError as error:
        print(f"the merged model is not verified: {error}", flush=True)
    except SQLQuarryError:
        (output / MANIFEST).unlink()  # without a manifest, the model does not look finished
        raise
    export = ModelExport.of(merged)
    (output / MANIFEST).unlink()
    for path in list(output.iterdir()):
        if path.name not in export.files:
            path.unlink()
    for name, content in export.files.items():
        if isinstance(content, bytes):
            write_atomically(output / name, content)
    merge = {**export.manifest.provenance.get("merge", {}), "verification": verification}
    manifest = Manifest(MergedModel.kind, export.manifest.files, {**export.manifest.provenance, "merge": merge})
    write_atomically(output / MANIFEST, manifest.content())
    print(f"merged: {output}, verification: {json.dumps(verification)}", flush=True)


def _copied(source: Path, target: Path) -> None:
    """Copy a finished directory with its manifest last."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, ignore=shutil.ignore_patterns(".*", MANIFEST))
    shutil.copyfile(source / MANIFEST, target / MANIFEST)


def _provide_secrets() -> None:
    """Set the variables with secrets for this process only. Those of pip were only for the installation.

    Raises:
        TrainingError: a secret cannot be read.
    """
    for name, arn in parse_object(os.environ.get(SECRETS, "{}").encode(), SECRETS).items():
        if not name.startswith(PIP):
            os.environ[name] = _secret(name, arn)


def _secret(name: str, arn: str) -> str:
    """Read the secret with the value of a variable."""
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        client = aws_client("secretsmanager", region=arn.split(":")[3])
        return secret_text(client.get_secret_value(SecretId=arn)["SecretString"])
    except (BotoCoreError, ClientError) as error:
        advice = "The job's role needs secretsmanager:GetSecretValue on the secret, and kms:Decrypt on its key."
        raise training_error(error, f"reading {name} from {arn}", advice) from error


def _leave_failure(root: Path, error: BaseException) -> None:
    """Write the failure reason for SageMaker, which shows the file's first 1,024 characters.

    Only the first process that fails writes it. The others fail because they lost a peer.
    """
    (root / "output").mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError), (root / "output" / "failure").open("x", encoding="utf-8") as file:
        file.write(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    sys.exit(main())
