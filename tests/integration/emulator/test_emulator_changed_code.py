"""A job fails before it runs any code if somebody has changed the code in the bucket."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import sqlquarry as sq
from emulator_training import Jobs
from sqlquarry.aws import Polling
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import TrainingError
from sqlquarry.sagemaker import Compute, SageMakerLauncher
from sqlquarry.sagemaker import launcher as launching

from conftest import toy_examples

RECORDS = [sq.Record(**example, id=f"toy-{number}") for number, example in enumerate(toy_examples(4))]


@pytest.mark.parametrize("name", ["bootstrap.py", "requirements.txt", ".whl"])
def test_changed_code_in_the_bucket_is_not_run(name: str, tiny_llama: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with LocalAWS() as aws:
        s3 = aws.session().client("s3")
        sent = launching.upload

        def changed_after_sending(prefix: Any, channel: Any) -> None:
            sent(prefix, channel)
            for file in (file for file in channel.files if channel.name == "code" and file.endswith(name)):
                place = {"Bucket": aws.bucket, "Key": f"sqlquarry/{channel.key}{file}"}
                body = s3.get_object(**place)["Body"].read()
                s3.put_object(**place, Body=b"print('INJECTED')\n" + body)

        monkeypatch.setattr(launching, "upload", changed_after_sending)
        launcher = SageMakerLauncher(
            aws.role_arn,
            bucket=aws.bucket,
            session=aws.session(),
            compute=Compute(instance_type="ml.m5.xlarge"),
            polling=Polling(interval_s=0.1),
        )
        trainer = sq.QLoRAFSDPTrainer(tiny_llama, config=sq.TrainingConfig(max_length=256, device="cpu"))
        job = launcher.launch(trainer, RECORDS, merge=None, wait=False)
        with pytest.raises(TrainingError, match="S3"):
            job.wait(show_progress=False)
        log = "\n".join(line for lines in Jobs(aws).log(job.name).values() for line in lines)
        assert "INJECTED" not in log
        assert "starting" not in log
        assert "emulated: the library" not in log

        # The next launch replaces the changed files.
        monkeypatch.setattr(launching, "upload", sent)
        assert launcher.launch(trainer, RECORDS, merge=None, wait=False).name == f"{job.name}-2"
        keys = [item["Key"] for item in s3.list_objects_v2(Bucket=aws.bucket)["Contents"] if item["Key"].endswith(name)]
        assert not any(s3.get_object(Bucket=aws.bucket, Key=key)["Body"].read().startswith(b"print") for key in keys)
