"""examples/train_on_sagemaker.py prints the request, without credentials and without a network."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[3] / "examples" / "train_on_sagemaker.py"
SECRET = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:hub-AbCdEf"


def test_the_dry_run_prints_the_request(tmp_path: Path) -> None:
    # Nothing in the environment that could lead to an account.
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(tmp_path), "AWS_EC2_METADATA_DISABLED": "true"}
    environment["HF_HUB_OFFLINE"] = "1"
    command = [sys.executable, str(EXAMPLE), "--spot", "--region", "eu-west-1", "--bucket", "mine"]
    command += ["--secret", f"HF_TOKEN={SECRET}", "--set", "WANDB_PROJECT=a=b"]
    ran = subprocess.run(command, env=environment, cwd=tmp_path, check=True, capture_output=True, text=True)

    request = json.loads(ran.stdout)
    assert request["EnableManagedSpotTraining"] is True
    assert request["Environment"] == {
        "WANDB_PROJECT": "a=b",
        "SQLQUARRY_SECRET_ARNS": f'{{"HF_TOKEN":"{SECRET}"}}',
    }
    assert request["ResourceConfig"]["InstanceType"] == "ml.g5.12xlarge"
    assert request["OutputDataConfig"]["S3OutputPath"] == "s3://mine/sqlquarry/jobs"
    assert [channel["ChannelName"] for channel in request["InputDataConfig"]] == ["train", "evaluation", "job", "code"]
