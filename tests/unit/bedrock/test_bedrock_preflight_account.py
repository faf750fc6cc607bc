"""Check accounts with scripted clients: each defect has its finding, and a denied request is only a note."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError
from botocore.hooks import HierarchicalEmitter

from sqlquarry.bedrock.import_request import ImportRequest
from sqlquarry.bedrock.preflight.account import check_account

ACCOUNT = "123456789012"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/service/importer"
KEY = f"arn:aws:kms:us-east-1:{ACCOUNT}:key/{'a' * 36}"
TRUST = {
    "Effect": "Allow",
    "Principal": {"Service": "bedrock.amazonaws.com"},
    "Action": "sts:AssumeRole",
    "Condition": {"StringEquals": {"aws:SourceAccount": ACCOUNT}},
}
REQUEST = ImportRequest(
    name="sql",
    s3_uri="s3://models/sql/",
    region="us-east-1",
    role_arn=ROLE,
    kms_key_id=KEY,
    vpc_config={"subnetIds": ["subnet-1"], "securityGroupIds": ["sg-1"]},
)


def refusal(code: str, status: int = 400, **headers: str) -> ClientError:
    metadata = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return ClientError({"Error": {"Code": code, "Message": "no"}, "ResponseMetadata": metadata}, "op")  # type: ignore[arg-type,typeddict-item] - botocore fills in the rest


def policy(*statements: Any) -> dict[str, Any]:
    return {"Role": {"AssumeRolePolicyDocument": {"Statement": list(statements)}}}


# The answers of an account without defects. Tests replace single answers.
GOOD: dict[str, Any] = {
    "list_imported_models": [{"modelSummaries": [{"modelName": "other"}]}],
    "get_service_quota": {"Quota": {"Value": 3.0}},
    "list_model_import_jobs": {"modelImportJobSummaries": []},
    "head_bucket": {"BucketRegion": "us-east-1"},
    "get_bucket_encryption": {"ServerSideEncryptionConfiguration": {"Rules": []}},
    "get_caller_identity": {"Account": ACCOUNT},
    "get_role": policy(TRUST),
    "simulate_principal_policy": {"EvaluationResults": [{"EvalDecision": "allowed"}]},
    "describe_key": {"KeyMetadata": {"KeyState": "Enabled", "KeySpec": "SYMMETRIC_DEFAULT"}},
    "describe_subnets": {"Subnets": [{"VpcId": "vpc-1"}]},
    "describe_security_groups": {"SecurityGroups": [{"VpcId": "vpc-1"}]},
    "describe_vpc_endpoints": {"VpcEndpoints": [{}]},
}


class FakeSession:
    """A fake for a boto3 session, its clients and their paginators."""

    region_name = "us-east-1"
    meta = SimpleNamespace(events=HierarchicalEmitter())

    def __init__(self, **answers: Any) -> None:
        self.answers, self.calls = GOOD | answers, list[tuple[str, dict[str, Any]]]()

    def client(self, _service: str, **_options: Any) -> FakeSession:
        return self

    def get_paginator(self, operation: str) -> FakeSession:
        self.operation = operation
        return self

    def paginate(self, **arguments: Any) -> Any:
        return getattr(self, self.operation)(**arguments)

    def __getattr__(self, operation: str) -> Any:
        def call(**arguments: Any) -> Any:
            self.calls.append((operation, arguments))
            answer = self.answers[operation]
            if callable(answer):
                answer = answer(**arguments)
            if isinstance(answer, Exception):
                raise answer
            return answer

        return call


def found(request: ImportRequest = REQUEST, **answers: Any) -> list[str]:
    return [f"{f.severity}:{f.code}" for f in check_account(request, session=FakeSession(**answers))]


def test_a_good_account_has_no_findings_and_few_calls() -> None:
    session = FakeSession()
    assert check_account(REQUEST, session=session) == []
    assert len(session.calls) <= 16


def test_omitted_parameters_are_not_checked() -> None:
    session = FakeSession()
    assert check_account(ImportRequest(region="us-east-1"), session=session) == []
    assert {operation for operation, _ in session.calls} == {
        "list_imported_models",
        "get_service_quota",
        "list_model_import_jobs",
    }


def _trust(**changed: Any) -> dict[str, Any]:
    return policy({**TRUST, **changed})


DEFECTS: list[tuple[dict[str, Any], list[str]]] = [
    ({"list_imported_models": [{"modelSummaries": [{"modelName": n} for n in "abc"]}]}, ["error:model-quota"]),
    # One of the three has this model's name. The importer returns it, or reports that its content differs.
    ({"list_imported_models": [{"modelSummaries": [{"modelName": n} for n in ("a", "b", "sql")]}]}, []),
    (
        {
            "list_imported_models": [{"modelSummaries": [{"modelName": n} for n in "abc"]}],
            "get_service_quota": {"Quota": {"Value": 10.0}},
        },
        [],
    ),
    ({"list_model_import_jobs": {"modelImportJobSummaries": [{"jobName": "j"}]}}, ["warning:job-running"]),
    ({"head_bucket": {"BucketRegion": "eu-west-1"}}, ["error:bucket-region"]),
    ({"head_bucket": refusal("301", 301, **{"x-amz-bucket-region": "eu-west-1"})}, ["error:bucket-region"]),
    ({"head_bucket": refusal("404", 404)}, ["error:bucket"]),
    ({"head_bucket": {}, "get_bucket_location": {"LocationConstraint": None}}, []),
    ({"head_bucket": {}, "get_bucket_location": {"LocationConstraint": "us-west-2"}}, ["error:bucket-region"]),
    ({"get_role": refusal("NoSuchEntity", 404)}, ["error:role"]),
    ({"get_caller_identity": {"Account": "210987654321"}}, ["error:role"]),
    ({"get_role": _trust(Principal={"Service": "ec2.amazonaws.com"})}, ["error:role-trust"]),
    ({"get_role": _trust(Effect="Deny")}, ["error:role-trust"]),
    ({"get_role": policy(TRUST, TRUST | {"Effect": "Deny", "Condition": {}})}, ["error:role-trust"]),
    ({"get_role": policy(TRUST, TRUST | {"Effect": "Deny"})}, []),  # its condition may not hold
    ({"get_role": policy(TRUST, {"Effect": "Deny", "Principal": {"Service": "ec2.amazonaws.com"}})}, []),
    ({"get_role": _trust(Action="sts:TagSession")}, ["error:role-trust"]),
    ({"get_role": _trust(Condition={"StringEquals": {"AWS:SourceAccount": ["210987654321"]}})}, ["error:role-trust"]),
    ({"get_role": _trust(Condition={})}, ["warning:role-trust"]),
    (
        {
            "get_role": _trust(
                Condition={**TRUST["Condition"], "ArnEquals": {"aws:SourceArn": "arn:aws:bedrock:*"}}  # type: ignore[dict-item] - a plain dict
            )
        },
        ["warning:role-trust"],
    ),
    (
        {"simulate_principal_policy": {"EvaluationResults": [{"EvalDecision": "implicitDeny"}]}},
        ["error:role-permissions", "error:role-permissions"],
    ),
    (
        {
            "simulate_principal_policy": {
                "EvaluationResults": [{"EvalDecision": "implicitDeny", "MissingContextValues": ["x"]}]
            }
        },
        ["warning:role-permissions", "warning:role-permissions"],
    ),
    ({"describe_key": refusal("NotFoundException")}, ["error:kms-key"]),
    ({"describe_key": {"KeyMetadata": {"KeyState": "PendingDeletion"}}}, ["error:kms-key"]),
    ({"describe_key": {"KeyMetadata": {"KeySpec": "RSA_2048"}}}, ["error:kms-key"]),
    ({"describe_subnets": refusal("InvalidSubnetID.NotFound")}, ["error:vpc"]),
    ({"describe_security_groups": {"SecurityGroups": [{"VpcId": "vpc-2"}]}}, ["error:vpc"]),
    ({"describe_vpc_endpoints": {"VpcEndpoints": []}}, ["warning:vpc-endpoint"]),
]


@pytest.mark.parametrize(("answers", "expected"), DEFECTS, ids=lambda value: str(value)[:70])
def test_each_defect_has_its_finding(answers: dict[str, Any], expected: list[str]) -> None:
    assert found(**answers) == expected


def test_a_bucket_with_its_own_key_needs_decrypt() -> None:
    rule = {"ApplyServerSideEncryptionByDefault": {"SSEAlgorithm": "aws:kms", "KMSMasterKeyID": KEY}}

    def simulate(**arguments: Any) -> Any:
        (action,), (resource,) = arguments["ActionNames"], arguments["ResourceArns"]
        assert (resource == KEY) == (action == "kms:Decrypt")
        return {"EvaluationResults": [{"EvalDecision": "explicitDeny" if resource == KEY else "allowed"}]}

    encryption = {"ServerSideEncryptionConfiguration": {"Rules": [rule]}}
    (finding,) = check_account(
        REQUEST, session=FakeSession(get_bucket_encryption=encryption, simulate_principal_policy=simulate)
    )
    assert finding.code == "role-permissions"
    assert "kms:Decrypt" in finding.message


@pytest.mark.parametrize("operation", [name for name in GOOD if name != "get_bucket_encryption"])
@pytest.mark.parametrize(
    "error", [refusal("AccessDenied", 403), EndpointConnectionError(endpoint_url="http://127.0.0.1:1")]
)
def test_a_denied_request_is_a_note(operation: str, error: Exception) -> None:
    codes = found(**{operation: error})
    assert codes
    assert set(codes) == {"note:unchecked"}


def test_a_caller_without_permissions_gets_notes_that_list_them() -> None:
    denied = dict.fromkeys(GOOD, refusal("AccessDeniedException", 403))
    findings = check_account(REQUEST, session=FakeSession(**denied))
    assert {finding.severity for finding in findings} == {"note"}
    text = " ".join(str(finding) for finding in findings)
    for permission in ("iam:GetRole", "iam:SimulatePrincipalPolicy", "kms:DescribeKey", "ec2:DescribeSubnets"):
        assert permission in text
