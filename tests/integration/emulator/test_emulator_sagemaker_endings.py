"""Ends of emulated training jobs: requests, limits, spot interruptions, and the end of the emulator."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from emulator_training import Jobs
from processes import is_running
from sqlquarry.emulator import LocalAWS, ManualClock
from sqlquarry.emulator.faults import SpotInterruption
from sqlquarry.errors import ConfigError

# Continues after SIGTERM, with a child in its own session like torchrun's workers.
STUBBORN = """
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
signal.signal(signal.SIGTERM, lambda *_: print("not yet"))
(MODEL / "kept").write_text("half")
print("pids", os.getpid(), child.pid)
while True:
    time.sleep(0.05)
"""
# Writes its model after SIGTERM.
GENTLE = """
def end(*_):
    (MODEL / "saved").write_text("at the end")
    sys.exit(143)
signal.signal(signal.SIGTERM, end)
print("ready")
while True:
    time.sleep(0.05)
"""
# Writes one checkpoint per step, resumes from the newest, and ends at step 6 or immediately after SIGTERM.
STEPS = """
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
done = max((int(path.stem) for path in CHECKPOINTS.glob("*.txt")), default=0)
print("from", done, "with", sorted(path.name for path in MODEL.iterdir()))
for step in range(done + 1, 7):
    (CHECKPOINTS / f"{step}.txt").write_text(str(step))
    (MODEL / f"half-{step}").write_text("")
    print(f"step={step}")
    time.sleep(0.3)
"""


@pytest.fixture
def jobs():
    with LocalAWS() as aws:
        yield Jobs(aws)


@contextmanager
def clocked():
    clock = ManualClock()
    with LocalAWS(clock=clock, sleep=clock.advance) as aws:
        yield Jobs(aws), clock


def pids(jobs, name):
    """Wait until a stubborn job runs, and return its process IDs."""
    jobs.until(lambda: any(line.startswith("pids") for line in jobs.lines(name)))
    return [int(word) for word in jobs.lines(name)[0].split()[1:]]


def test_a_stopped_job_can_save_its_work(jobs):
    jobs.start("stopped", GENTLE)
    jobs.until(lambda: "ready" in jobs.lines("stopped"))
    jobs.sagemaker.stop_training_job(TrainingJobName="stopped")
    done = jobs.finish("stopped")
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "Stopped")
    assert jobs.stages("stopped")[-3:] == ["Training", "Stopping", "Stopped"]
    assert jobs.objects("output/stopped/output/model/") == {"saved": "at the end"}
    assert "FailureReason" not in done
    with pytest.raises(ClientError, match="because the training job is in status Stopped"):
        jobs.sagemaker.stop_training_job(TrainingJobName="stopped")


def test_after_120_seconds_every_process_is_killed_and_outputs_are_kept():
    with clocked() as (jobs, clock):
        jobs.start("stubborn", STUBBORN)
        running = pids(jobs, "stubborn")
        jobs.sagemaker.stop_training_job(TrainingJobName="stubborn")
        jobs.until(lambda: "not yet" in jobs.lines("stubborn"))
        clock.advance(119)
        assert jobs.describe("stubborn")["SecondaryStatus"] == "Stopping"
        assert all(map(is_running, running))
        clock.advance(1)
        assert jobs.finish("stubborn")["TrainingJobStatus"] == "Stopped"
        assert not any(map(is_running, running))
        assert jobs.objects("output/stubborn/output/model/") == {"kept": "half"}


def test_the_maximum_runtime_ends_a_job():
    with clocked() as (jobs, clock):
        jobs.start("long", GENTLE, StoppingCondition={"MaxRuntimeInSeconds": 3600})
        jobs.until(lambda: "ready" in jobs.lines("long"))
        clock.advance(3599)
        jobs.until(lambda: jobs.describe("long")["SecondaryStatus"] == "Training")
        clock.advance(1)
        done = jobs.finish("long")
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "MaxRuntimeExceeded")
    assert done["TrainingTimeInSeconds"] == 3600


def test_checkpoints_are_restored_and_copied_to_s3_during_and_after_the_run(jobs):
    script = """
    def end(*_):
        (CHECKPOINTS / "deep/3").write_text("three")
        sys.exit(143)
    signal.signal(signal.SIGTERM, end)
    print("found", (CHECKPOINTS / "1").read_text())
    (CHECKPOINTS / "1").unlink()
    (CHECKPOINTS / "deep").mkdir()
    (CHECKPOINTS / "deep/2").write_text("two")
    while True:
        time.sleep(0.05)
    """
    jobs.put("kept/1", "one")
    jobs.start("resumes", script, CheckpointConfig={"S3Uri": f"s3://{jobs.aws.bucket}/kept"})
    jobs.until(lambda: "/deep/2" in jobs.objects("kept"))
    assert jobs.describe("resumes")["SecondaryStatus"] == "Training"
    jobs.sagemaker.stop_training_job(TrainingJobName="resumes")
    jobs.finish("resumes")
    assert jobs.lines("resumes") == ["found one"]
    # Nothing on S3 is deleted.
    assert jobs.objects("kept") == {"/1": "one", "/deep/2": "two", "/deep/3": "three"}


def test_a_spot_job_continues_after_each_interruption(jobs):
    jobs.aws.faults.add(SpotInterruption(after_step=2), SpotInterruption(after_step=4))
    done = jobs.run("spot", STEPS, **jobs.spot("spot"))
    assert done["TrainingJobStatus"] == "Completed", done.get("FailureReason")
    assert jobs.stages("spot") == [
        *("Starting", "Downloading", "Training", "Interrupted") * 2,
        *("Starting", "Downloading", "Training", "Uploading", "Completed"),
    ]
    begins = [line for line in jobs.lines("spot") if line.startswith("from")]
    # The instances are new, so only the checkpoints are left.
    assert [line.split(" with ")[1] for line in begins] == ["[]"] * 3
    first, second, third = (int(line.split()[1]) for line in begins)
    assert 0 == first < 2 <= second < third < 6
    assert len(jobs.log("spot")) == 3
    assert done["BillableTimeInSeconds"] < done["TrainingTimeInSeconds"]
    assert jobs.aws.faults.pending() == []


def test_only_spot_jobs_are_interrupted(jobs):
    jobs.aws.faults.add(SpotInterruption(after_s=0))
    assert jobs.run("on-demand", "time.sleep(0.3)")["TrainingJobStatus"] == "Completed"
    assert len(jobs.aws.faults.pending()) == 1
    jobs.aws.faults.clear()


def test_the_maximum_wait_time_ends_a_spot_job_that_waits_for_capacity():
    with clocked() as (jobs, clock):
        jobs.aws.faults.add(SpotInterruption(after_s=60, capacity_after_s=90_000))
        jobs.start("waits", GENTLE, **jobs.spot("waits"))
        jobs.until(lambda: "ready" in jobs.lines("waits"))
        clock.advance(60)
        jobs.until(lambda: jobs.stages("waits")[-2:] == ["Interrupted", "Starting"])
        assert jobs.describe("waits")["TrainingJobStatus"] == "InProgress"
        clock.advance(7140)
        done = jobs.finish("waits")
    assert (done["TrainingJobStatus"], done["SecondaryStatus"]) == ("Stopped", "MaxWaitTimeExceeded")
    assert done["TrainingTimeInSeconds"] == 60


def test_closing_and_resetting_end_every_process(monkeypatch, tmp_path):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with LocalAWS() as aws:
        jobs = Jobs(aws)
        jobs.start("reset", STUBBORN)
        before = pids(jobs, "reset")
        aws.reset()
        assert not any(map(is_running, before))
        jobs.start("closed", STUBBORN)
        after = pids(jobs, "closed")
        assert all(map(is_running, after))
    assert not any(map(is_running, after))
    assert list(tmp_path.iterdir()) == []


def test_a_job_ends_if_its_emulator_is_killed():
    code = f"""
from emulator_training import Jobs
from sqlquarry.emulator import LocalAWS
with LocalAWS() as aws:
    jobs = Jobs(aws)
    jobs.start("orphan", {"print(os.getpid())" + chr(10) + "time.sleep(600)"!r})
    print(jobs.until(lambda: jobs.lines("orphan"))[0], flush=True)
    input()
"""
    here = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "support")}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": here}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as emulator:
        pid = int(emulator.stdout.readline())
        assert is_running(pid)
        emulator.kill()
    end = time.monotonic() + 20
    while is_running(pid):
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.parametrize("options", [{}, {"after_s": 1, "after_step": 2}])
def test_an_interruption_needs_exactly_one_time(options):
    with pytest.raises(ConfigError, match=r"\): .*\bafter_s\b.*\bafter_step\b"):
        SpotInterruption(**options)
