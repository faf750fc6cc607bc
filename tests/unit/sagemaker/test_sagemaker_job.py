"""TrainingJob: following a job, its final states, and its cost."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from sagemaker_fakes import Account, refusal
from sqlquarry.aws import Polling
from sqlquarry.errors import TrainingError, TrainingInterruptedError
from sqlquarry.sagemaker.job import TrainingJob
from sqlquarry.sagemaker.logs import LogFollower
from sqlquarry.sagemaker.metrics import Progress

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def running(account: Account, **description: Any) -> TrainingJob:
    account.jobs["job"] = {
        "TrainingJobName": "job",
        "TrainingJobStatus": "InProgress",
        "SecondaryStatus": "Training",
        "ResourceConfig": {"InstanceType": "ml.g5.12xlarge", "InstanceCount": 2},
        "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        "OutputDataConfig": {"S3OutputPath": "s3://models/jobs/"},
    } | description
    prices = {"ml.g5.12xlarge": 7.0}
    polling = Polling(sleep=lambda _: None)
    return TrainingJob("job", sagemaker=account, logs=account, usd_per_hour=prices, polling=polling, now=lambda: NOON)


def ended(status: str, secondary: str | None = None, **more: Any) -> dict[str, Any]:
    return {"TrainingJobStatus": status, "SecondaryStatus": secondary or status} | more


def test_waiting_shows_states_and_lines_as_they_come(capsys: pytest.CaptureFixture[str]) -> None:
    account = Account()
    stream = "job/algo-1-1764000000"
    account.events[stream] = ["starting", "step=1/4 loss=2.5 tokens_per_s=100 eta_s=9"]
    job = running(account, SecondaryStatus="Downloading")
    account.looks = [{}, ended("InProgress", "Training"), ended("Completed")]

    def later(_: float) -> None:
        account.events[stream].append(f"step={len(account.events[stream])}/4 loss=1.5 tokens_per_s=2000 eta_s=3")

    job.polling = Polling(sleep=later)
    assert job.wait() is job
    shown = capsys.readouterr().err.splitlines()
    assert [line for line in shown if line.startswith("[")] == ["[Downloading]", "[Training]", "[Completed]"]
    assert [line.partition(" ")[0] for line in shown if "=" in line] == ["step=1/4", "step=2/4", "step=3/4"]
    assert job.progress == Progress(3, 4, 1.5, 2000.0, 3.0)


def test_waiting_silently_reads_no_log(capsys: pytest.CaptureFixture[str]) -> None:
    account = Account()
    job = running(account, **ended("Completed"))
    account.events["job/algo-1-1"] = ["a line"]
    job.wait(show_progress=False)
    assert "a line" not in capsys.readouterr().err


def test_an_interrupted_wait_says_how_to_attach_again(caplog: pytest.LogCaptureFixture) -> None:
    job = running(Account())

    def interrupted(_: float) -> None:
        raise KeyboardInterrupt

    job.polling = Polling(sleep=interrupted)
    with pytest.raises(KeyboardInterrupt):
        job.wait()
    assert "attach('job')" in caplog.text
    assert job.sagemaker.stopped == []


def test_waiting_ends_after_its_timeout_and_the_job_continues() -> None:
    job = running(Account())
    passed: list[float] = []
    job.polling = Polling(interval_s=2.0, timeout_s=5.0, sleep=passed.append, clock=lambda: sum(passed))
    with pytest.raises(TrainingError, match=r"training job job .*timeout_s=5\b.*attach\('job'\)"):
        job.wait(show_progress=False)
    assert passed == [2.0, 2.0, 2.0]
    assert job.sagemaker.stopped == []
    assert job.status == "InProgress"


def test_lines_of_several_machines_have_the_machines_name_and_appear_once() -> None:
    account = Account()
    account.events = {"job/algo-1-176": ["a", "b", "c"], "job/algo-2-176": ["d"], "job2/algo-1-1": ["of another job"]}
    follower = LogFollower(account, "job")
    assert list(follower.lines()) == ["algo-1: a", "algo-1: b", "algo-1: c", "algo-2: d"]
    account.events["job/algo-1-176"].append("e")
    assert list(follower.lines()) == ["algo-1: e"]


def test_two_starts_of_a_spot_machine_count_as_one_machine() -> None:
    account = Account()
    account.events = {"job/algo-1-176": ["a"], "job/algo-1-177": ["b"]}
    assert list(LogFollower(account, "job").lines()) == ["a", "b"]


def test_a_log_that_cannot_be_read_does_not_end_the_wait(caplog: pytest.LogCaptureFixture) -> None:
    account = Account()
    assert list(LogFollower(account, "job").lines()) == []  # there is no log yet
    assert caplog.records == []

    def denied(operation: str) -> None:
        raise refusal("AccessDeniedException", "no logs for you", operation)

    account.get_paginator = denied  # type: ignore[method-assign] - the refusal under test
    assert list(LogFollower(account, "job").lines()) == []
    assert "no logs for you" in caplog.text


@pytest.mark.parametrize(
    ("end", "limit"),
    [
        (ended("Stopped", "MaxRuntimeExceeded"), "max_runtime_s=3600"),
        (ended("Stopped", "MaxWaitTimeExceeded"), "max_wait_s=7200"),
        (ended("Stopped"), None),
    ],
)
def test_a_stopped_job_says_which_limit_it_reached(end: dict[str, Any], limit: str | None) -> None:
    with pytest.raises(TrainingInterruptedError, match=r"training job job .*checkpoint") as caught:
        running(Account(), **end).wait(show_progress=False)
    named = re.search(r"max_\w+_s=\d+", str(caught.value))
    assert (named and named[0]) == limit


@pytest.mark.parametrize(
    ("reason", "says"),
    [
        ("CapacityError: Unable to provision requested ML compute capacity.", "instance_type"),
        ("AlgorithmError: OutOfMemoryError: CUDA out of memory", "TrainingConfig.max_length"),
        ("AlgorithmError: OSError: No space left on device", "volume_size_in_gb"),
        ("AlgorithmError: GatedModelError: meta-llama/x is gated", "secret_arns={'HF_TOKEN': …}"),
        ("AlgorithmError: TrainingError: … GetSecretValue operation: AccessDenied", "secretsmanager:GetSecretValue"),
        (
            "AlgorithmError: TrainingError: no run could be begun in wandb: 401 Unauthorized: access denied",
            "environment",
        ),
        ("ClientError: AccessDenied when calling GetObject", "s3:GetObject"),
        ("InternalServerError", "machine"),
        ("AlgorithmError: RecordError: 3 records have no sql", "cause"),
    ],
)
def test_a_failed_job_says_why_and_what_to_do(reason: str, says: str) -> None:
    with pytest.raises(TrainingError) as caught:
        running(Account(), **ended("Failed", FailureReason=reason)).wait(show_progress=False)
    assert not isinstance(caught.value, TrainingInterruptedError)
    assert reason.rstrip(".") in str(caught.value)
    assert says in str(caught.value)


def test_cost_follows_the_billable_seconds_of_all_machines() -> None:
    account = Account()
    assert running(account).cost_usd == 0.0  # it has not started
    assert running(account, TrainingStartTime=NOON - timedelta(hours=2)).cost_usd == pytest.approx(2 * 2 * 7.0)
    # The service's own figure is used as soon as it exists. For a spot job it includes the savings.
    job = running(account, TrainingStartTime=NOON - timedelta(hours=2), BillableTimeInSeconds=1800)
    assert job.cost_usd == pytest.approx(0.5 * 2 * 7.0)
    job.usd_per_hour = {}
    assert job.cost_usd is None


def test_results_are_at_the_services_location() -> None:
    account = Account()
    job = running(account)
    assert job.merged_uri == "s3://models/jobs/job/output/model/merged"
    account.jobs["job"]["ModelArtifacts"] = {"S3ModelArtifacts": "s3://models/elsewhere/"}
    assert job.adapter_uri == "s3://models/elsewhere/adapter"


def test_stop_asks_once_and_ignores_an_ended_job() -> None:
    account = Account()
    job = running(account)
    job.stop()
    assert account.stopped == ["job"]
    account.jobs["job"]["TrainingJobStatus"] = "Completed"
    job.stop()
    assert account.stopped == ["job"]
