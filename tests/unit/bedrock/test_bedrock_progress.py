"""Import jobs, request batches and batch jobs show their progress by default, and nothing if it is off."""

from __future__ import annotations

import pytest

from sqlquarry.answers import Generation
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock.import_jobs import ImportJobs
from sqlquarry.errors import ImportJobError
from sqlquarry.models.batches import BatchSender
from sqlquarry.models.retries import RetryPolicy
from sqlquarry.progress import workload

ARN = "arn:aws:bedrock:us-east-1:123456789012:model-import-job/abc123"


class Bedrock:
    def __init__(self, *states: str) -> None:
        self.states = list(states)

    def get_model_import_job(self, **_: str) -> dict[str, str]:
        return {"status": self.states.pop(0), "importedModelArn": "arn:model"}


def jobs(*states: str, show: bool) -> ImportJobs:
    polling = Polling(timeout_s=60.0, sleep=lambda _: None)
    return ImportJobs(Bedrock(*states), polling=polling, role_propagation_s=0.0, show_progress=show)


@pytest.mark.parametrize("show", [True, False])
def test_waiting_for_an_import_shows_the_expected_time(show: bool, capsys) -> None:
    assert jobs("InProgress", "InProgress", "Completed", show=show).wait(ARN, 10**9) == "arn:model"
    with pytest.raises(ImportJobError):
        jobs("Failed", show=show).wait(ARN, 10**9)
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["import job abc123"] * 4 * show
    if show:
        assert all("min expected" in line for line in lines)
        assert lines[-1].endswith("stopped")


@pytest.mark.parametrize("show", [True, False])
def test_many_requests_are_counted(show: bool, capsys, monkeypatch) -> None:
    monkeypatch.setattr(workload, "BRIEF_S", 0.0)  # otherwise three answers are too brief for a bar
    policy = RetryPolicy(cold_start_budget_s=1, cold_start_interval_s=1, max_attempts=1)
    sender = BatchSender("model-id", "my-model", policy, show_progress=show)
    sender.run(sender.runner(), lambda _: Generation("SELECT 1"), [1, 2, 3])
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition(",")[0] for line in lines] == ["generate with my-model: 3/3"] * show
