"""SageMakerLauncher: the request, the checks before it, and that nothing is done twice."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sagemaker_fakes import API_KEY, KEY, RECORDS, ROLE, TOKEN, TRAINER, Account, launcher, refusal
from sqlquarry import PromptFormatter, QLoRAFSDPTrainer, Record, TrainingConfig
from sqlquarry.aws import Polling
from sqlquarry.errors import ConfigError, DeviceError, RecordError, TrainingError
from sqlquarry.sagemaker import Compute, Networking, SageMakerLauncher, StoppingCondition
from sqlquarry.sagemaker.validation import violations
from sqlquarry.training.base import token_estimator

from conftest import save_tiny_llama


def channels(request: dict[str, Any]) -> dict[str, str]:
    return {one["ChannelName"]: one["DataSource"]["S3DataSource"]["S3Uri"] for one in request["InputDataConfig"]}


def test_every_option_is_in_a_request_that_the_service_model_accepts() -> None:
    account = Account()
    many_a_step = QLoRAFSDPTrainer(TRAINER.base_model, config=TrainingConfig(records_per_step=400))  # rows for both
    request = launcher(
        account,
        compute=Compute(spot=True, instance_count=2),
        stopping=StoppingCondition(max_runtime_s=7200, max_wait_s=9000),
        networking=Networking(subnets=["subnet-0a1b2c3d"], security_group_ids=["sg-0a1b2c3d"]),
        kms_key_arn=KEY,
        tags={"team": "data"},
        environment={"WANDB_PROJECT": "wiki"},
        secret_arns={"WANDB_API_KEY": API_KEY, "HF_TOKEN": TOKEN},
    ).dry_run(many_a_step, RECORDS * 400, RECORDS, name="wiki")

    assert violations(request, account.meta.service_model) == []
    entrypoint = request["AlgorithmSpecification"]["ContainerEntrypoint"]
    assert (entrypoint[0], entrypoint[-2]) == ("python3", "/opt/ml/input/data/code/bootstrap.py")
    assert request["AlgorithmSpecification"]["ContainerArguments"][-2:] == ["install", "train"]
    assert request["OutputDataConfig"] == {
        "S3OutputPath": "s3://models/sqlquarry/jobs",
        "CompressionType": "NONE",
        "KmsKeyId": KEY,
    }
    assert request["ResourceConfig"] == {
        "InstanceType": "ml.g5.12xlarge",
        "InstanceCount": 2,
        "VolumeSizeInGB": 200,
        "VolumeKmsKeyId": KEY,
    }
    assert request["StoppingCondition"] == {"MaxRuntimeInSeconds": 7200, "MaxWaitTimeInSeconds": 9000}
    assert request["EnableManagedSpotTraining"] is True
    assert request["VpcConfig"] == {"Subnets": ["subnet-0a1b2c3d"], "SecurityGroupIds": ["sg-0a1b2c3d"]}
    assert request["CheckpointConfig"]["LocalPath"] == "/opt/ml/checkpoints"
    assert request["Environment"] == {
        "WANDB_PROJECT": "wiki",
        "SQLQUARRY_SECRET_ARNS": f'{{"HF_TOKEN":"{TOKEN}","WANDB_API_KEY":"{API_KEY}"}}',
    }
    assert request["Tags"] == [{"Key": "team", "Value": "data"}]
    assert list(channels(request)) == ["train", "evaluation", "job", "code"]
    assert request["TrainingJobName"].startswith("wiki-")
    assert account.objects == {}
    assert account.requests == []


def test_a_warm_pool_is_requested_only_on_demand() -> None:
    request = launcher(compute=Compute(keep_alive_period_s=600)).dry_run(TRAINER, RECORDS)
    assert request["ResourceConfig"]["KeepAlivePeriodInSeconds"] == 600
    assert "EnableManagedSpotTraining" not in request


@pytest.mark.parametrize(
    ("settings", "options", "named"),
    [
        (launcher, {"bucket": "s3://models"}, "bucket is 's3://models'"),
        (Compute, {"instance_count": 0}, "instance_count is 0"),
        (launcher, {"prefix": "s3://models/x"}, "prefix is 's3://models/x'"),
        (Polling, {"interval_s": -1}, "interval_s is -1"),
        (Polling, {"interval_s": float("inf")}, "interval_s is inf"),
        (StoppingCondition, {"max_wait_s": 60}, "max_wait_s is 60"),
        (launcher, {"stopping": StoppingCondition(max_wait_s=90_000)}, "max_wait_s=90000"),
        (StoppingCondition, {"max_runtime_s": 100, "max_wait_s": 60}, "at least max_runtime_s=100"),
        (Compute, {"spot": True, "keep_alive_period_s": 60}, "keep_alive_period_s is 60"),
        (Networking, {"subnets": ["subnet-1"], "security_group_ids": ()}, "security_group_ids is ()"),
        (Networking, {"subnets": ["subnet-1"]}, "security_group_ids"),
        (Compute, {"instance_type": "ml.trn1.2xlarge"}, "instance_type is 'ml.trn1.2xlarge'"),
    ],
)
def test_invalid_options_are_reported(settings: Callable[..., object], options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError) as caught:
        settings(**options)
    assert named in str(caught.value)


def test_all_bad_options_are_listed_together() -> None:
    with pytest.raises(ConfigError, match=r"bucket is .*; environment has 'A_KEY', .*; secret_arns is"):
        launcher(bucket="B", environment={"A_KEY": "x"}, secret_arns={"HF_TOKEN": "x"})
    with pytest.raises(ConfigError, match=r"Compute: .*instance_count is .*; volume_size_in_gb is "):
        Compute(instance_count=0, volume_size_in_gb=0)
    with pytest.raises(ConfigError, match=r"StoppingCondition: max_runtime_s is 0, .*; max_wait_s is -1"):
        StoppingCondition(max_runtime_s=0, max_wait_s=-1)


@pytest.mark.parametrize(
    ("settings", "word", "ours"),
    [
        (Compute, "enable_managed_spot_training", "spot"),
        (Compute, "volume_size", "volume_size_in_gb"),
        (Compute, "keep_alive_period_in_seconds", "keep_alive_period_s"),
        (StoppingCondition, "max_runtime_in_seconds", "max_runtime_s"),
        (StoppingCondition, "max_run", "max_runtime_s"),
        (launcher, "instance_type", "compute"),
        (launcher, "stopping_condition", "stopping"),
        (launcher, "training_image", "image"),
    ],
)
def test_names_of_the_sagemaker_sdk_suggest_the_option(settings: Callable[..., object], word: str, ours: str) -> None:
    with pytest.raises(ConfigError, match=f"{word}.*'{ours}'"):
        settings(**{word: 1})


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"compute": Compute(instance_type="ml.g5.13xlarge")}, "'ml.g5.13xlarge'.* ml.g5.xlarge, ml.g5.2xlarge"),
        ({"tags": {"k": "v" * 300}}, "Tags.*'v{300}'.* 256"),
        ({"compute": Compute(keep_alive_period_s=99_999)}, "KeepAlivePeriodInSeconds is 99999.* 21600"),
        ({"kms_key_arn": "a key"}, "KmsKeyId is 'a key'"),
    ],
)
def test_invalid_requests_are_found_before_anything_is_sent(options: dict[str, Any], named: str) -> None:
    account = Account()
    with pytest.raises(ConfigError, match=named):
        launcher(account, **options).launch(TRAINER, RECORDS)
    assert account.objects == {}


def test_a_duration_is_a_number() -> None:
    with pytest.raises(ConfigError, match=r"max_runtime_s.* '1h'"):
        StoppingCondition(max_runtime_s="1h")  # type: ignore[arg-type] - wrong on purpose


def test_an_invalid_role_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"RoleArn is 'arn:aws:iam::1:user/me'"):
        SageMakerLauncher("arn:aws:iam::1:user/me", bucket="models", session=Account()).dry_run(TRAINER, RECORDS)


@pytest.mark.parametrize(("device", "instance"), [("cuda", "ml.m5.xlarge"), ("cpu", "ml.g5.12xlarge")])
def test_a_device_that_the_machine_does_not_have_is_refused(device: Any, instance: str) -> None:
    trainer = QLoRAFSDPTrainer("Qwen/Qwen3-8B", config=TrainingConfig(device=device))
    with pytest.raises(ConfigError, match=f"device is '{device}'.*{instance}"):
        launcher(compute=Compute(instance_type=instance)).dry_run(trainer, RECORDS)


def test_a_gpu_without_bfloat16_is_refused() -> None:
    for instance in ("ml.g4dn.xlarge", "ml.p3.2xlarge", "ml.p2.xlarge"):
        account = Account()
        refusing = launcher(account, compute=Compute(instance_type=instance))
        for ask in (refusing.dry_run, refusing.launch, refusing.plan):
            with pytest.raises(DeviceError, match=f"{instance} .*bfloat16"):
                ask(TRAINER, RECORDS)
        assert account.objects == {}


def test_records_without_sql_are_refused() -> None:
    with pytest.raises(RecordError, match="'train'"):
        launcher().dry_run(TRAINER, [])
    with pytest.raises(RecordError, match=r"'train'.*\br7\b"):
        launcher().dry_run(TRAINER, [*RECORDS, Record("q", "CREATE TABLE t (a INT)", id="r7")])


def test_the_bucket_is_checked_before_anything_is_sent() -> None:
    account = Account(bucket_region="us-east-1")
    with pytest.raises(ConfigError, match=r"models.*us-east-1.*eu-west-1"):
        launcher(account).launch(TRAINER, RECORDS)
    with pytest.raises(TrainingError, match=r"bucket missing .*\b404\b.*`bucket`"):
        launcher(account, bucket="missing").launch(TRAINER, RECORDS)
    assert account.objects == {}


def test_the_container_reads_what_is_sent() -> None:
    account = Account()
    launcher(account, kms_key_arn=KEY, prefix="/team/sql/").launch(TRAINER, RECORDS, merge="original", wait=False)

    (request,) = account.requests
    sent = {
        name: {key: body for key, body in account.objects.items() if uri == f"s3://models/{key.rpartition('/')[0]}/"}
        for name, uri in channels(request).items()
    }
    assert all(key.startswith("team/sql/inputs/") for key in account.objects)
    (train,) = sent["train"].values()
    assert [Record(**json.loads(line)) for line in train.splitlines()] == RECORDS
    job = {key.rpartition("/")[2]: body for key, body in sent["job"].items()}
    content = json.loads(job["job.json"])
    assert content["base_model"] == TRAINER.base_model
    assert content["merge"] == {"base": "original"}
    assert content["config"] == json.loads(json.dumps(dataclasses.asdict(TRAINER.config)))
    assert json.loads(job["prompt.json"])["fingerprint"] == TRAINER.formatter.fingerprint
    assert {key.rpartition("/")[2].rpartition(".")[2] for key in sent["code"]} == {"py", "txt", "whl"}
    assert {put["SSEKMSKeyId"] for put in account.puts} == {KEY}
    assert {put["ChecksumAlgorithm"] for put in account.puts} == {"SHA256"}


def test_the_prompt_that_is_sent_is_the_one_that_loads(tmp_path: Path) -> None:
    account = Account()
    trainer = QLoRAFSDPTrainer("Qwen/Qwen3-8B", formatter=PromptFormatter(template="chat"))
    launcher(account).launch(trainer, RECORDS, wait=False)
    (prompt,) = (body for key, body in account.objects.items() if key.endswith("/prompt.json"))
    (tmp_path / "prompt.json").write_bytes(prompt)
    assert PromptFormatter.load(tmp_path) == trainer.formatter


def test_the_same_launch_finds_the_running_and_the_finished_job(capsys: pytest.CaptureFixture[str]) -> None:
    account = Account()
    first = launcher(account).launch(TRAINER, RECORDS, wait=False)
    sent = len(account.puts)

    assert launcher(account).launch(TRAINER, RECORDS, wait=False).name == first.name
    account.jobs[first.name]["TrainingJobStatus"] = "Completed"
    assert launcher(account).launch(TRAINER, RECORDS).name == first.name
    assert len(account.requests) == 1
    assert len(account.puts) == sent
    shown = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("encoding")]
    assert shown == []  # a finished job's log is not shown again


def test_a_plan_that_starts_other_processes_finds_the_same_job(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    trainer = QLoRAFSDPTrainer(TRAINER.base_model, config=TrainingConfig(max_length=256))
    first = launcher(account).launch(trainer, RECORDS * 40, wait=False)

    # As if the tokenizer were accessible now, and a token had 30 bytes.
    def tokenized(_: object, text: str | list[str], **__: object) -> dict[str, list[int] | list[list[int]]]:
        texts = [text] if isinstance(text, str) else text
        ids = [[0] * (len(one.encode()) // 30 + 1) for one in texts]
        return {"input_ids": ids[0] if isinstance(text, str) else ids}

    monkeypatch.setattr(token_estimator.TokenEstimator, "__call__", tokenized)
    assert launcher(account).launch(trainer, RECORDS * 40, wait=False).name == first.name
    started = account.requests[0]["AlgorithmSpecification"]["ContainerArguments"]
    asked = launcher(account).dry_run(trainer, RECORDS * 40)["AlgorithmSpecification"]["ContainerArguments"]
    assert len(account.requests) == 1
    assert started != asked


@pytest.mark.parametrize("ended", ["Failed", "Stopped"])
def test_a_failed_job_is_started_again_with_its_checkpoints(ended: str) -> None:
    account = Account()
    first = launcher(account).launch(TRAINER, RECORDS, wait=False)
    account.jobs[first.name]["TrainingJobStatus"] = ended

    again = launcher(account).launch(TRAINER, RECORDS, wait=False)

    assert again.name == f"{first.name}-2"
    assert account.requests[0]["CheckpointConfig"] == account.requests[1]["CheckpointConfig"]
    assert len(account.puts) == len(account.objects)  # nothing was sent twice


def test_job_names_depend_on_the_content_and_checkpoints_on_the_training() -> None:
    base = launcher().dry_run(TRAINER, RECORDS)
    other_machine = launcher(compute=Compute(instance_type="ml.p4d.24xlarge")).dry_run(TRAINER, RECORDS)
    slower = dataclasses.replace(TRAINER.config, save_interval_s=60.0)
    other_habit = launcher().dry_run(QLoRAFSDPTrainer(TRAINER.base_model, config=slower), RECORDS)
    other_data = launcher().dry_run(TRAINER, [*RECORDS, *RECORDS])
    other_settings = launcher(environment={"WANDB_PROJECT": "wiki"}, secret_arns={"HF_TOKEN": TOKEN}).dry_run(
        TRAINER, RECORDS
    )
    other_rank = launcher().dry_run(QLoRAFSDPTrainer(TRAINER.base_model, config=TrainingConfig(lora_r=8)), RECORDS)

    assert launcher().dry_run(TRAINER, RECORDS) == base
    runs = (base, other_machine, other_habit, other_settings, other_data, other_rank)
    assert len({request["TrainingJobName"] for request in runs}) == len(runs)
    for other in (other_machine, other_habit, other_settings):
        assert other["CheckpointConfig"] == base["CheckpointConfig"]
    assert len({request["CheckpointConfig"]["S3Uri"] for request in runs}) == 3


def test_a_local_base_model_is_sent_and_one_on_s3_is_read_there(tmp_path: Path) -> None:
    account = Account()
    save_tiny_llama(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"the same weights")
    account.objects |= {f"llama/{path.name}": path.read_bytes() for path in tmp_path.iterdir()}
    for base in (tmp_path, "s3://bases/llama"):
        launcher(account).launch(QLoRAFSDPTrainer(base), RECORDS, wait=False)
    assert account.read["llama/model.safetensors"] < len(account.objects["llama/model.safetensors"])

    local, remote = account.requests
    prefix = channels(local)["model"].removeprefix("s3://models/")
    sent = {key.removeprefix(prefix): body for key, body in account.objects.items() if key.startswith(prefix)}
    assert sent == {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.suffix != ".bin"}
    assert channels(remote)["model"] == "s3://bases/llama/"
    assert str(tmp_path).encode() not in b"".join(account.objects.values())


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (
            refusal(
                "ResourceLimitExceeded",
                "The account-level service limit 'ml.g5.12xlarge for training job usage' is 0 Instances, with current "
                "utilization of 0 Instances and a request delta of 1 Instances.",
            ),
            "at least 1 .*'ml.g5.12xlarge for training job usage'.* eu-west-1",
        ),
        (refusal("ResourceLimitExceeded", "limit"), "'ml.g5.12xlarge for training job usage'"),
        (
            refusal("ValidationException", "Could not assume role arn:aws:iam::1:role/x."),
            "sts:AssumeRole.*sagemaker.amazonaws.com",
        ),
        (
            refusal("AccessDeniedException", "User is not authorized to perform: iam:PassRole on resource"),
            "iam:PassedToService = sagemaker.amazonaws.com",
        ),
        (refusal("AccessDeniedException", "not authorized: sagemaker:CreateTrainingJob"), "logs:GetLogEvents"),
        (refusal("ExpiredTokenException", "The security token included in the request is expired"), "aws sso login"),
    ],
)
def test_a_refusal_says_what_to_request(error: Exception, says: str) -> None:
    account = Account()
    account.refusing = error
    with pytest.raises(TrainingError, match=says) as caught:
        launcher(account).launch(TRAINER, RECORDS)
    assert caught.value.__cause__ is error


def test_spot_machines_have_their_own_quota() -> None:
    account = Account()
    account.refusing = refusal("ResourceLimitExceeded", "limit")
    with pytest.raises(TrainingError, match=r"'ml\.g5\.12xlarge for spot training job usage'"):
        launcher(account, compute=Compute(spot=True)).launch(TRAINER, RECORDS)


def test_a_job_that_another_process_has_just_started_is_attached_to() -> None:
    account = Account()
    account.refusing = refusal("ResourceInUse", "Training job names must be unique")
    job = launcher(account).launch(TRAINER, RECORDS, wait=False)
    assert job.name.startswith("sqlquarry-")


def test_attach_requires_an_existing_job() -> None:
    with pytest.raises(TrainingError, match=r"training job gone .*ValidationException"):
        launcher().attach("gone")


def test_without_a_region_the_error_says_how_to_set_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_DEFAULT_REGION", raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    with pytest.raises(ConfigError, match="AWS_DEFAULT_REGION"):
        SageMakerLauncher(ROLE, bucket="models").dry_run(TRAINER, RECORDS)
