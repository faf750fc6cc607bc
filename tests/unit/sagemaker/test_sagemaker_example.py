"""examples/train_on_sagemaker.py prints the request, without credentials and without a network."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

from conftest import toy_examples

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "train_on_sagemaker.py"
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:hub-AbCdEf"


def dry_run(home: Path, *options: str) -> subprocess.CompletedProcess[str]:
    # The environment gives no access to an account or the hub.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(home), "AWS_EC2_METADATA_DISABLED": "true"}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, str(EXAMPLE), *options]
    return subprocess.run(command, env=environment, cwd=home, check=True, capture_output=True, text=True)


def test_the_defaults_work_with_few_records_and_suggest_a_cheaper_machine(tmp_path: Path) -> None:
    with (tmp_path / "mine.jsonl").open("w") as file:
        file.writelines(json.dumps(example) + "\n" for example in toy_examples(120))
    ran = dry_run(tmp_path, "--data", "mine.jsonl")
    request = json.loads(ran.stdout)
    assert request["ResourceConfig"]["InstanceType"] == "ml.g5.12xlarge"
    arguments = request["AlgorithmSpecification"]["ContainerArguments"]
    assert re.fullmatch("processes=[123]", arguments[-3])  # of four GPUs
    assert re.search(r"ml\.g\w+\.2xlarge would cost about \$\d", ran.stderr)
    lines = ran.stderr.splitlines()
    assert len(set(lines)) == len(lines)  # no note twice
    assert any("tokens are estimated" in line for line in lines)


def test_the_dry_run_prints_the_request(tmp_path: Path) -> None:
    options = ["--spot", "--region", "eu-west-1", "--bucket", "mine"]
    ran = dry_run(tmp_path, *options, "--secret", f"HF_TOKEN={SECRET}", "--set", "WANDB_PROJECT=a=b")

    request = json.loads(ran.stdout)
    assert request["EnableManagedSpotTraining"] is True
    assert request["Environment"] == {
        "WANDB_PROJECT": "a=b",
        "SQLQUARRY_SECRET_ARNS": f'{{"HF_TOKEN":"{SECRET}"}}',
    }
    assert request["ResourceConfig"]["InstanceType"] == "ml.g5.12xlarge"
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://mine/sqlquarry/jobs"
    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["train", "evaluation", "job", "code"]
