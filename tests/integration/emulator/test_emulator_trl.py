"""A training job on the emulator trains with TRL."""

from __future__ import annotations

import json

import pytest

import sqlquarry as sq
from emulator_training import Jobs
from sqlquarry.aws import Polling
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import ConfigError
from sqlquarry.sagemaker import Compute, SageMakerLauncher

from conftest import toy_examples

RECORDS = [sq.Record(**example) for example in toy_examples(8)]


def test_a_job_trains_with_trl_and_installs_it(tiny_llama):
    config = sq.TrainingConfig(num_train_epochs=1, records_per_step=4, max_length=320, device="cpu")
    options = {"backend": "trl", "sft_config": {"weight_decay": 0.01}}
    with LocalAWS() as aws:
        launcher = SageMakerLauncher(
            aws.role_arn,
            bucket=aws.bucket,
            session=aws.session(),
            compute=Compute(instance_type="ml.m5.xlarge"),
            polling=Polling(interval_s=0.2),
        )
        with pytest.raises(ConfigError, match="callbacks"):
            launcher.launch(sq.QLoRAFSDPTrainer(tiny_llama, config=config, callbacks=[print], **options), RECORDS)
        job = launcher.launch(sq.QLoRAFSDPTrainer(tiny_llama, config=config, **options), RECORDS, merge=None)
        objects = Jobs(aws).objects("")
    (manifest,) = (
        json.loads(text) for key, text in objects.items() if key.endswith("adapter/manifest.json") and "/output/" in key
    )
    backend = manifest["provenance"]["backend"]
    assert (backend["name"], backend["sft_config"]["weight_decay"]) == ("trl", 0.01)
    assert manifest["provenance"]["config"]["sft_config"] == {"weight_decay": 0.01}
    (requirements,) = (text for key, text in objects.items() if key.endswith("requirements.txt"))
    assert {"trl", "datasets", "peft"} <= {line.split("==")[0] for line in requirements.splitlines() if "==" in line}
    assert job.name
