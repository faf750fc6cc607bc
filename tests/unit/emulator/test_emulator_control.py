"""The control plane without a server: imports during their copy, and imports that fail."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from sqlquarry.emulator.bedrock.control_plane import ModelImports
from sqlquarry.emulator.bedrock.timing import ImportTiming
from sqlquarry.emulator.clock import ManualClock
from sqlquarry.emulator.faults import AccessDenied, Faults, JobFails, JobHangs
from sqlquarry.emulator.requests.errors import ApiError


def control(storage, fetch=lambda *_: None, **options):
    return ModelImports(
        storage=storage,
        fetch=fetch,
        role_trusts_bedrock=lambda _: True,
        on_delete=lambda _: None,
        arn_prefix="arn:aws:bedrock:us-east-1:123456789012",
        **options,
    )


def request(name):
    return {
        "jobName": name,
        "importedModelName": name,
        "roleArn": "arn:aws:iam::123456789012:role/import",
        "modelDataSource": {"s3DataSource": {"s3Uri": "s3://models/one"}},
    }


def test_other_calls_are_answered_while_files_are_copied(tmp_path):
    started, gate = threading.Event(), threading.Event()

    def slow(*_):
        started.set()
        assert gate.wait(10)

    imports = control(tmp_path, slow)
    with ThreadPoolExecutor(1) as client:
        creating = client.submit(imports.create_model_import_job, request("slow"))
        assert started.wait(10)
        try:
            assert imports.get_model_import_job({"jobIdentifier": "slow"})["status"] == "InProgress"
            assert imports.list_imported_models({})["modelSummaries"] == []
            with pytest.raises(ApiError, match="Concurrent model import jobs"):
                imports.create_model_import_job(request("second"))
        finally:
            gate.set()
        creating.result(10)
    assert imports.get_model_import_job({"jobIdentifier": "slow"})["status"] == "Failed"  # nothing was copied


def test_any_error_ends_the_job_and_allows_the_next_one(tmp_path):
    def full(*_):
        raise OSError("No space left on device")

    imports = control(tmp_path, full)
    for name in ("first", "second"):
        imports.create_model_import_job(request(name))
        job = imports.get_model_import_job({"jobIdentifier": name})
        assert job["status"] == "Failed"
        assert job["failureMessage"] == "OSError: No space left on device (in s3://models/one)"
    assert list(tmp_path.iterdir()) == []


def status(imports, name):
    return imports.get_model_import_job({"jobIdentifier": name})["status"]


def test_a_job_ends_after_the_given_number_of_polls(tmp_path):
    imports = control(tmp_path, timing=ImportTiming(import_polls=2))
    imports.create_model_import_job(request("first"))
    assert [status(imports, "first") for _ in range(3)] == ["InProgress", "InProgress", "Failed"]


def test_a_job_without_polls_does_not_block_new_jobs_forever(tmp_path):
    imports = control(tmp_path, timing=ImportTiming(import_polls=2))
    imports.create_model_import_job(request("abandoned"))
    for _ in range(2):
        with pytest.raises(ApiError, match="Concurrent model import jobs"):
            imports.create_model_import_job(request("second"))
    imports.create_model_import_job(request("second"))


def test_the_duration_of_a_job_is_measured_by_the_clock(tmp_path):
    clock = ManualClock(50)
    imports = control(tmp_path, timing=ImportTiming(import_s=600), clock=clock)
    imports.create_model_import_job(request("first"))
    clock.advance(599)
    assert status(imports, "first") == "InProgress"
    clock.advance(1)
    job = imports.get_model_import_job({"jobIdentifier": "first"})
    assert job["status"] == "Failed"
    assert (job["endTime"] - job["creationTime"]).total_seconds() == 600


def test_faults_make_a_job_fail_or_hang(tmp_path):
    clock = ManualClock()
    faults = Faults(clock)
    faults.add(JobFails(message="KMS says no"), JobHangs())
    imports = control(tmp_path, faults=faults, clock=clock)
    imports.create_model_import_job(request("hangs"))
    clock.advance(1e6)
    assert status(imports, "hangs") == "InProgress"
    with pytest.raises(ApiError, match="Concurrent model import jobs"):
        imports.create_model_import_job(request("second"))
    faults.clear()
    assert imports.get_model_import_job({"jobIdentifier": "hangs"})["failureMessage"] == "KMS says no"


def test_a_role_that_may_not_read_fails_the_job(tmp_path):
    faults = Faults()
    faults.add(AccessDenied(operation="kms:Decrypt"))
    imports = control(tmp_path, faults=faults)
    imports.create_model_import_job(request("denied"))
    message = imports.get_model_import_job({"jobIdentifier": "denied"})["failureMessage"]
    assert message.startswith(
        "Could not validate GetObject permissions to access Amazon S3 bucket: models at key one: "
    )
    assert "kms:Decrypt" in message


def test_a_reset_during_a_copy_leaves_nothing_behind(tmp_path):
    started, gate = threading.Event(), threading.Event()

    def slow(*_):
        started.set()
        assert gate.wait(10)

    imports = control(tmp_path, slow)
    with ThreadPoolExecutor(1) as client:
        creating = client.submit(imports.create_model_import_job, request("slow"))
        assert started.wait(10)
        imports.reset()
        gate.set()
        creating.result(10)
    assert imports.list_model_import_jobs({})["modelImportJobSummaries"] == []
    assert list(tmp_path.iterdir()) == []


def test_a_key_is_shown_as_an_arn(tmp_path):
    imports = control(tmp_path)
    for name, key, arn in (
        ("a", "1234abcd-12ab-34cd-56ef-1234567890ab", "key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        ("b", "alias/models", "alias/models"),
    ):
        imports.create_model_import_job(request(name) | {"importedModelKmsKeyId": key})
        job = imports.get_model_import_job({"jobIdentifier": name})
        assert job["importedModelKmsKeyArn"] == f"arn:aws:kms:us-east-1:123456789012:{arn}"
