"""Every fault as boto3 sees it. The clock is manual, so no test waits."""

from __future__ import annotations

import pytest
from botocore.config import Config
from botocore.exceptions import ConnectionClosedError, EventStreamError, HTTPClientError

from emulator_account import ONCE, Parrot, clocked, sketch
from sqlquarry.emulator.faults import (
    AccessDenied,
    AnswerReset,
    CutAnswer,
    ExpiredToken,
    InternalError,
    JobFails,
    NoText,
    NotReady,
    QuotaExceeded,
    RateLimit,
    Refused,
    RoleUnknown,
    SlowAnswers,
    StreamBroken,
    Throttled,
    UploadReset,
)

MIB = 1 << 20
PROMPT = "SELECT name FROM users"


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Yield an account and a model. S3 calls are not retried either."""
    with clocked(load_model=Parrot) as account:
        account.s3 = account.aws.session().client("s3", config=ONCE)
        account.upload(sketch(tmp_path_factory.mktemp("exported") / "model"))
        yield account, account.imported("sql")


@pytest.fixture
def account(served):
    yield served[0]
    served[0].aws.faults.clear()


@pytest.fixture
def model(served):
    return served[1]


def ask(account, model):
    return account.ask(model, prompt=PROMPT, max_tokens=9)["choices"][0]["text"]


def refused(account, model):
    return account.error(lambda: ask(account, model))


def test_a_new_role_can_be_unknown_for_some_calls(account):
    account.aws.faults.add(RoleUnknown(times=2))
    for _ in range(2):
        code, message, _ = account.error(account.create, name="later")
        assert (code, message) == ("ValidationException", "The provided role ARN is invalid")
    account.finish(account.create("later", prefix="nothing"))


def test_quotas_and_internal_errors_of_the_control_plane(account):
    account.aws.faults.add(
        QuotaExceeded(), QuotaExceeded(message="Imported models per account"), InternalError(operation="List*Models")
    )
    assert account.error(account.create, name="x")[::2] == ("ServiceQuotaExceededException", 400)
    assert "per account" in account.error(account.create, name="x")[1]
    assert account.error(account.bedrock.list_imported_models)[::2] == ("InternalServerException", 500)


@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        (Throttled(), "ThrottlingException", 429),
        (NotReady(), "ModelNotReadyException", 429),
        (InternalError(), "InternalServerException", 500),
        (ExpiredToken(), "ExpiredTokenException", 403),
        (AccessDenied(operation="InvokeModel"), "AccessDeniedException", 403),
        (Refused(code="ModelTimeoutException"), "ModelTimeoutException", 408),
        (Refused(code="ModelErrorException"), "ModelErrorException", 424),
        (Refused(code="ServiceUnavailableException"), "ServiceUnavailableException", 503),
        (Refused(code="UnrecognizedClientException"), "UnrecognizedClientException", 403),
    ],
)
@pytest.mark.filterwarnings("error")
def test_errors_of_invocations_have_their_code_and_status(account, model, fault, code, status):
    account.aws.faults.add(fault)
    assert refused(account, model) == (code, fault.message, status)


def test_a_rate_limit_is_measured_by_the_clock(account, model):
    account.aws.faults.add(RateLimit(per_second=1))
    assert ask(account, model) == PROMPT
    assert refused(account, model)[0] == "ThrottlingException"
    account.clock.advance(1)
    assert ask(account, model) == PROMPT


def test_a_model_can_be_not_ready_for_some_time(account, model):
    account.aws.faults.add(NotReady(duration_s=90))
    assert refused(account, model)[0] == "ModelNotReadyException"
    account.clock.advance(90)
    assert ask(account, model) == PROMPT


@pytest.mark.parametrize(
    ("service", "call", "code"),
    [
        ("s3", "list_buckets", ("ExpiredToken", 400)),
        ("iam", "list_roles", ("ExpiredToken", 403)),
        ("sts", "get_caller_identity", ("ExpiredToken", 403)),
        ("bedrock", "list_imported_models", ("ExpiredTokenException", 403)),
        ("service-quotas", "list_service_quotas", ("ExpiredTokenException", 403)),
    ],
)
def test_expired_credentials_have_the_code_of_each_service(account, service, call, code):
    account.aws.faults.add(ExpiredToken())
    client = account.aws.session().client(service, config=ONCE)
    options = {"ServiceCode": "bedrock"} if service == "service-quotas" else {}
    assert account.error(getattr(client, call), **options)[::2] == code


def test_access_to_one_key_can_be_denied(account):
    s3, bucket = account.s3, account.aws.bucket
    account.aws.faults.add(AccessDenied(operation="PutObject", key="denied/*.bin"))
    put = {"Bucket": bucket, "Key": "denied/a.bin", "Body": b"x" * MIB}
    assert account.error(s3.put_object, **put)[::2] == ("AccessDenied", 403)
    s3.put_object(Bucket=bucket, Key="denied/a.json", Body=b"x")
    account.aws.faults.add(AccessDenied(operation="HeadObject"))
    assert account.error(s3.head_object, Bucket=bucket, Key="denied/a.json")[0] == "403"


def test_s3_answers_slow_down_if_it_is_throttled(account):
    account.aws.faults.add(Throttled(operation="ListObjectsV2"))
    assert account.error(account.s3.list_objects_v2, Bucket=account.aws.bucket)[::2] == ("SlowDown", 503)


@pytest.mark.parametrize("retries", [1, 2])
def test_a_connection_can_break_during_an_upload(account, retries):
    s3 = account.aws.session().client("s3", config=Config(retries={"total_max_attempts": retries}))
    put = {"Bucket": account.aws.bucket, "Key": "broken"}
    account.aws.faults.add(UploadReset(after_bytes=MIB, key="broken"))
    s3.put_object(**put, Body=b"short")  # shorter than `after_bytes`, so the fault does not match
    if retries == 1:
        with pytest.raises((ConnectionClosedError, HTTPClientError)):
            s3.put_object(**put, Body=b"x" * 3 * MIB)
        assert s3.get_object(**put)["Body"].read() == b"short"
    s3.put_object(**put, Body=b"x" * 3 * MIB)
    assert s3.head_object(**put)["ContentLength"] == 3 * MIB
    assert account.aws.faults.pending() == []


def test_a_connection_can_break_during_a_part(account):
    where = {"Bucket": account.aws.bucket, "Key": "parts"}
    upload = where | {"UploadId": account.s3.create_multipart_upload(**where)["UploadId"]}
    account.aws.faults.add(UploadReset(after_bytes=MIB))
    with pytest.raises((ConnectionClosedError, HTTPClientError)):
        account.s3.upload_part(**upload, PartNumber=1, Body=b"x" * 5 * MIB)
    assert "Parts" not in account.s3.list_parts(**upload)


@pytest.mark.parametrize("after", [0, 10])
def test_a_connection_can_break_during_an_answer(account, model, after):
    account.aws.faults.add(AnswerReset(after_bytes=after))
    with pytest.raises((HTTPClientError, ConnectionClosedError)):
        ask(account, model)
    assert ask(account, model) == PROMPT
    account.s3.put_object(Bucket=account.aws.bucket, Key="got", Body=b"x" * MIB)
    account.aws.faults.add(AnswerReset(operation="GetObject", key="got", after_bytes=after))
    with pytest.raises((HTTPClientError, ConnectionClosedError, OSError)):
        account.s3.get_object(Bucket=account.aws.bucket, Key="got")["Body"].read()


def test_a_stream_can_break(account, model):
    account.aws.faults.add(StreamBroken(after_chunks=2), StreamBroken(code="throttlingException", after_chunks=0))
    for code, chunks in (("modelStreamErrorException", 2), ("throttlingException", 0)):
        body = b'{"prompt": "SELECT name FROM users", "max_tokens": 9}'
        stream = iter(account.runtime.invoke_model_with_response_stream(modelId=model, body=body)["body"])
        for _ in range(chunks):
            assert "chunk" in next(stream)
        with pytest.raises(EventStreamError) as caught:
            next(stream)
        assert caught.value.response["Error"]["Code"] == code
    assert account.stream(model, prompt=PROMPT, max_tokens=9)[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_job_can_fail_with_a_given_message(account):
    account.aws.faults.add(JobFails(message="KMS key is disabled"))
    assert account.finish(account.create("fails"))["failureMessage"] == "KMS key is disabled"


def test_answers_can_be_cut_empty_or_slow(account, model):
    account.aws.faults.add(CutAnswer(tokens=2))
    choice = account.ask(model, prompt=PROMPT, max_tokens=9)["choices"][0]
    assert (choice["text"], choice["finish_reason"]) == ("SELECT name", "length")
    account.aws.faults.add(NoText(times=4))
    assert account.ask(model, prompt=PROMPT, max_tokens=9)["choices"] == []
    assert "generation" not in account.ask(model, prompt=PROMPT, max_gen_len=9)
    assert account.ask(model, messages=[{"role": "user", "content": "hi"}])["choices"] == []
    assert all(piece["choices"] == [] for piece in account.stream(model, prompt=PROMPT, max_tokens=9))
    account.aws.faults.add(SlowAnswers(latency_s=30))
    before = account.clock()
    assert ask(account, model) == PROMPT
    assert account.clock() == before + 30


def test_logprobs_are_in_complete_answers_but_not_in_streams(account, model):
    answer = account.ask(model, prompt="a bb ccc", max_tokens=9, logprobs=1)
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [-1.0, -2.0, -3.0]
    body = b'{"prompt": "a", "max_tokens": 9, "logprobs": 1}'
    code, message, _ = account.error(account.runtime.invoke_model_with_response_stream, modelId=model, body=body)
    assert code == "ValidationException"
    assert "logprobs" in message


def test_a_bucket_in_another_region_redirects_and_makes_the_import_fail(account):
    s3 = account.s3
    s3.create_bucket(Bucket="far", CreateBucketConfiguration={"LocationConstraint": "eu-west-1"})
    sent = []
    s3.meta.events.register("before-send.s3", lambda request, **_: sent.append(request.headers["Authorization"]))
    s3.put_object(Bucket="far", Key="a", Body=b"a")  # boto3 follows the redirect, as it does with AWS
    assert b"/us-east-1/s3" in sent[0]
    assert b"/eu-west-1/s3" in sent[-1]
    source = {"s3DataSource": {"s3Uri": "s3://far/model"}}
    failed = account.finish(account.create("far", modelDataSource=source))
    assert failed["status"] == "Failed"
    assert all(value in failed["failureMessage"] for value in ("bucket far", "eu-west-1", "us-east-1"))
    code = account.error(
        s3.create_bucket, Bucket="x-far", CreateBucketConfiguration={"LocationConstraint": "us-east-1"}
    )
    assert code[0] in ("IllegalLocationConstraintException", "InvalidLocationConstraint")


def test_quotas_identity_and_simulated_policies(account):
    session = account.aws.session()
    quotas, iam = session.client("service-quotas"), session.client("iam")
    quota = quotas.get_service_quota(ServiceCode="bedrock", QuotaCode="L-45B04988")["Quota"]
    assert (quota["QuotaName"], quota["Value"], quota["Adjustable"]) == ("Imported models per account", 3.0, True)
    assert len(quotas.list_service_quotas(ServiceCode="bedrock")["Quotas"]) == 2
    for unknown in ({"ServiceCode": "bedrock", "QuotaCode": "L-0"}, {"ServiceCode": "s3", "QuotaCode": "L-45B04988"}):
        assert account.error(quotas.get_service_quota, **unknown)[0] == "NoSuchResourceException"
    assert session.client("sts").get_caller_identity()["Account"] == account.aws.role_arn.split(":")[4]
    account.aws.faults.add(AccessDenied(operation="GetObject"))
    results = iam.simulate_principal_policy(
        PolicySourceArn=account.aws.role_arn, ActionNames=["s3:GetObject", "s3:ListBucket"], ResourceArns=["*"]
    )["EvaluationResults"]
    assert [result["EvalDecision"] for result in results] == ["explicitDeny", "allowed"]


def test_only_arns_of_imported_models_are_valid_identifiers(account):
    for identifier in ("sql", "anthropic.claude-3-haiku-20240307-v1:0"):
        error = account.error(account.runtime.invoke_model, modelId=identifier, body=b"{}")
        assert error == ("ValidationException", "The provided model identifier is invalid.", 400)
