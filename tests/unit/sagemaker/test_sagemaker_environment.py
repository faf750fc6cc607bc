"""The environment of a job's process: settings, ARNs of secrets, and everything that a report needs."""

from __future__ import annotations

import importlib.metadata
import json
from typing import Any

import pytest

from sagemaker_fakes import API_KEY, RECORDS, TOKEN, TRAINER, Account, launcher
from sqlquarry import QLoRAFSDPTrainer, TrainingConfig
from sqlquarry.errors import ConfigError
from sqlquarry.sagemaker import Compute, packaging
from sqlquarry.sagemaker.validation import violations
from sqlquarry.training.tracking import reporting


def test_no_token_of_this_machine_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    account = Account()
    monkeypatch.setenv("HF_TOKEN", "hf_secretsecret")
    chosen = launcher(account, secret_arns={"HF_TOKEN": TOKEN})
    assert TOKEN not in repr(chosen)
    chosen.launch(TRAINER, RECORDS, wait=False)
    sent = json.dumps(account.requests).encode() + b"".join(account.objects.values())
    assert TOKEN.encode() in sent
    assert b"hf_secretsecret" not in sent


@pytest.mark.parametrize(
    "options",
    [
        {"secret_arns": {"HF_TOKEN": "hf_secretsecret"}},
        {"secret_arns": {"hf_secretsecret": "HF_TOKEN"}},
        {"secret_arns": {"hf-secretsecret": TOKEN}},
        {"environment": {"HF_TOKEN": "hf_secretsecret"}},
        {"environment": {"NOTE": "hf_secretsecret" * 100}},
    ],
)
def test_a_secret_in_the_wrong_place_is_not_repeated(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"secret_arns is \(not shown\)|environment has '(HF_TOKEN|NOTE)'") as caught:
        launcher(**options)
    assert "secretsecret" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        *(
            ({"environment": {name: "x"}}, f"'{name}'.*secret_arns")
            for name in ("WANDB_API_KEY", "hf_token", "TOKEN", "MLFLOW_TRACKING_PASSWORD", "AWS_SECRET_ACCESS_KEY")
        ),
        ({"environment": {"1ST": "x", "A-B": "x", "": "x", "C" * 513: "x"}}, "'1ST', 'A-B', '', 'CCC"),
        ({"environment": {"LINE\n": "x"}}, r"'LINE\\n'"),
        ({"environment": {"A": "x" * 513, "B": "é" * 600}}, "'A', 'B'.* 512 "),
        ({"environment": {"SM_HOSTS": "x"}}, "'SM_HOSTS'.*SQLQUARRY_ or SM_"),
        ({"secret_arns": {"SQLQUARRY_ML_ROOT": TOKEN}}, "'SQLQUARRY_ML_ROOT'.*SQLQUARRY_ or SM_"),
        (
            {"environment": {"MLFLOW_TRACKING_URI": "x"}, "secret_arns": {"MLFLOW_TRACKING_URI": TOKEN}},
            "'MLFLOW_TRACKING_URI'.*environment.*secret_arns",
        ),
        ({"environment": {f"V{number}": "" for number in range(101)}}, r"environment.*\b101\b.*\b100$"),
        (
            {"environment": {f"V{number}": "" for number in range(100)}, "secret_arns": {"HF_TOKEN": TOKEN}},
            r"environment.*\b100\b.*\b100\b.*secret_arns",
        ),
        ({"secret_arns": {f"V{number}": TOKEN for number in range(7)}}, r"secret_arns.*\b512\b"),
        ({"secret_arns": {"HF_TOKEN": "x"}}, "secret_arns.*Secrets Manager"),
        ({"secret_arns": {"HF_TOKEN": None}}, r"secret_arns\[…\].*NoneType"),
        ({"environment": {"hf_token_in_the_wrong_place": 1}}, r"environment\[…\].*int"),
    ],
)
def test_an_invalid_environment_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        launcher(**options)


def test_the_largest_environment_and_names_that_only_resemble_secrets_pass() -> None:
    account = Account()
    names = ("TOKENIZERS_PARALLELISM", "KEYS", "MONKEY", "WANDB_RUN_ID", "SMDEBUG", "V" * 512)
    environment = dict.fromkeys(names, "x" * 512) | {f"V{number}": "" for number in range(99 - len(names))}
    secrets = {f"V{number}_KEY": TOKEN for number in range(5)}
    request = launcher(account, environment=environment, secret_arns=secrets).dry_run(TRAINER, RECORDS)
    assert len(request["Environment"]) == 100
    assert violations(request, account.meta.service_model) == []


@pytest.mark.parametrize(
    ("report_to", "options", "named"),
    [
        ("wandb", {}, r"secret_arns=\{'WANDB_API_KEY': …\}.*environment=\{'WANDB_MODE': 'offline'\}"),
        ("wandb", {"environment": {"WANDB_MODE": "online"}}, "WANDB_API_KEY"),
        ("mlflow", {}, r"environment=\{'MLFLOW_TRACKING_URI': …\}"),
        ("mlflow", {"environment": {"MLFLOW_TRACKING_URI": ""}}, "MLFLOW_TRACKING_URI"),
        ("comet", {}, "report_to is .*'comet'"),
        ("wandb", {"environment": {"WANDB_MODE": "offline", "WANDB_LOG_MODEL": "end"}}, "WANDB_LOG_MODEL"),
    ],
)
def test_a_report_that_would_be_lost_is_refused(
    report_to: str, options: dict[str, Any], named: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "find_spec", lambda _: object())  # none of the packages is needed here
    trainer = QLoRAFSDPTrainer("Qwen/Qwen3-8B", config=TrainingConfig(report_to=("tensorboard", report_to)))
    account = Account()
    with pytest.raises(ConfigError, match=named):
        launcher(account, compute=Compute(instance_type="ml.g5.xlarge"), **options).launch(trainer, RECORDS)
    assert account.objects == {}


@pytest.mark.parametrize(
    ("report_to", "options"),
    [
        ("wandb", {"secret_arns": {"WANDB_API_KEY": API_KEY}}),
        ("wandb", {"environment": {"WANDB_MODE": "offline"}}),
        ("mlflow", {"environment": {"MLFLOW_TRACKING_URI": "https://mlflow.example.com"}}),
        ("mlflow", {"secret_arns": {"MLFLOW_TRACKING_URI": TOKEN}}),  # an address may hold a password
    ],
)
def test_a_complete_report_is_pinned_regardless_of_local_settings(
    report_to: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.distribution
    monkeypatch.setattr(packaging, "distribution", lambda name: real("tensorboard" if name == report_to else name))
    monkeypatch.setattr(reporting, "find_spec", lambda _: object())
    monkeypatch.setenv("WANDB_LOG_MODEL", "end")
    account = Account()
    trainer = QLoRAFSDPTrainer("Qwen/Qwen3-8B", config=TrainingConfig(report_to=(report_to,)))
    launcher(account, requirements="without-hashes", **options).launch(trainer, RECORDS, wait=False)
    (pinned,) = (body for key, body in account.objects.items() if key.endswith("/requirements.txt"))
    assert f"{report_to}==".encode() in pinned


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("https://user:hunter2hunter2@index.example/simple", "hunter2"),
        ("AKIAIOSFODNN7EXAMPLE", "AKIA"),
        ("hf_" + "aB3" * 12, "aB3"),
        ("postgresql://u:hunter2hunter2@db/x", "hunter2"),
        ("https://store.example/x?sig=hunter2hunter2", "hunter2"),
    ],
)
def test_a_credential_in_a_value_or_tag_is_refused_without_being_shown(value: str, shown: str) -> None:
    for options, named in (
        ({"environment": {"SETTING": value}}, "'SETTING'"),
        ({"tags": {"note": value}}, "tags.note"),
    ):
        with pytest.raises(ConfigError) as caught:
            launcher(**options)
        assert named in str(caught.value)
        assert "secret_arns" in str(caught.value)
        assert shown not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"image": "user:pw@https://u:hunter2hunter2@registry/x"}, {"prefix": "hf_" + "aB3" * 12}]
)
def test_a_credential_anywhere_in_the_request_is_refused_before_anything_is_sent(options: dict[str, Any]) -> None:
    account = Account()
    with pytest.raises(ConfigError, match="secret_arns") as caught:
        launcher(account, **options).launch(TRAINER, RECORDS)
    assert "hunter2" not in str(caught.value)
    assert "aB3" not in str(caught.value)
    assert account.objects == {}
