"""The import role with moto's IAM: least privilege, created once, updated, and never taken from somebody else."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import boto3
import pytest

from bedrock_scripted import scripted_aws
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock import create_import_role, role_documents
from sqlquarry.errors import BedrockError, ConfigError

KEY = "arn:aws:kms:us-east-1:123456789012:key/11111111-2222-3333-4444-555555555555"


@pytest.fixture(scope="module")
def session() -> Iterator[Any]:
    with scripted_aws():
        yield boto3.session.Session("testing", "testing", region_name="us-east-1")


def make(session: Any, name: str, **options: Any) -> str:
    return create_import_role(name, session=session, **({"bucket": "models", "prefix": "sql"} | options))


def policies(session: Any, name: str) -> list[dict[str, Any]]:
    iam = session.client("iam")
    names = iam.list_role_policies(RoleName=name)["PolicyNames"]
    return [iam.get_role_policy(RoleName=name, PolicyName=policy)["PolicyDocument"] for policy in names]


def test_the_documents_grant_reading_one_prefix_and_nothing_else() -> None:
    trust, permissions = role_documents(account="123456789012", bucket="models", prefix="/sql/one/")
    (who,) = trust["Statement"]
    assert who["Principal"] == {"Service": "bedrock.amazonaws.com"}
    assert who["Condition"] == {"StringEquals": {"aws:SourceAccount": "123456789012"}}
    listing, reading = permissions["Statement"]
    own = {"aws:ResourceAccount": "123456789012"}
    assert (listing["Action"], listing["Resource"]) == (["s3:ListBucket"], ["arn:aws:s3:::models"])
    assert listing["Condition"] == {"StringEquals": own, "StringLike": {"s3:prefix": ["sql/one", "sql/one/*"]}}
    assert (reading["Action"], reading["Resource"]) == (["s3:GetObject"], ["arn:aws:s3:::models/sql/one/*"])
    assert reading["Condition"] == {"StringEquals": own}


def test_a_key_a_vpc_another_owner_and_another_partition() -> None:
    _, permissions = role_documents(
        account="123456789012",
        bucket="models",
        bucket_owner="210987654321",
        kms_key_arn=KEY,
        vpc_region="us-east-1",
        partition="aws-us-gov",
    )
    by_name = {statement["Sid"]: statement for statement in permissions["Statement"]}
    assert by_name["ReadModel"]["Resource"] == ["arn:aws-us-gov:s3:::models/*"]
    assert by_name["ReadModel"]["Condition"]["StringEquals"]["aws:ResourceAccount"] == "210987654321"
    assert "StringLike" not in by_name["ListModel"]["Condition"]
    assert by_name["DecryptModel"]["Resource"] == [KEY]
    anywhere = [name for name, statement in by_name.items() if statement["Resource"] == "*"]
    assert anywhere == ["DescribeNetwork"]
    actions = {action for statement in permissions["Statement"] for action in statement["Action"]}
    assert not any("*" in action for action in actions)


def test_all_bad_values_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        role_documents(account="12", bucket="No", prefix="a*", kms_key_arn="alias/x")
    for part in ("account is '12'", "bucket is 'No'", "prefix is 'a*'", "kms_key_arn is 'alias/x'"):
        assert part in str(caught.value)
    with pytest.raises(ConfigError, match="name is 'a b'"):
        create_import_role("a b", bucket="models")


def test_a_second_call_changes_nothing(session: Any, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="sqlquarry"):
        arn = make(session, "once", kms_key_arn=KEY)
        before = policies(session, "once")
        assert make(session, "once", kms_key_arn=KEY) == arn == "arn:aws:iam::123456789012:role/once"
    assert policies(session, "once") == before
    assert len(before) == 1
    assert "testing" not in caplog.text  # the credentials


def test_another_prefix_is_added_and_a_broken_trust_policy_is_fixed(session: Any) -> None:
    make(session, "twice")
    broken = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": "*"}]}
    session.client("iam").update_assume_role_policy(RoleName="twice", PolicyDocument=json.dumps(broken))
    make(session, "twice", prefix="other")
    read = {statement["Resource"][0] for policy in policies(session, "twice") for statement in policy["Statement"]}
    assert {"arn:aws:s3:::models/sql/*", "arn:aws:s3:::models/other/*"} <= read
    trust = session.client("iam").get_role(RoleName="twice")["Role"]["AssumeRolePolicyDocument"]
    assert trust == role_documents(account="123456789012", bucket="models").trust


def test_a_role_of_somebody_else_is_not_changed(session: Any) -> None:
    session.client("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument=json.dumps({"Version": "2012-10-17"}))
    with pytest.raises(BedrockError, match=r"'theirs'.*arn:aws:iam::123456789012:role/theirs"):
        make(session, "theirs")
    assert policies(session, "theirs") == []


def test_waiting_for_iam_ends(session: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps: list[float] = []
    polling = Polling(interval_s=2.0, timeout_s=60.0, sleep=sleeps.append, clock=lambda: sum(sleeps))
    from sqlquarry.bedrock import import_role as module

    # moto shows a role immediately, so a delay can only be simulated in the function that asks for it.
    shown = module._role
    monkeypatch.setattr(
        module, "_role", lambda iam, name: shown(iam, name) if len(sleeps) in (0, 3) and sleeps else None
    )
    make(session, "slow", polling=polling)
    assert len(sleeps) == 3
    sleeps.clear()
    monkeypatch.setattr(module, "_policy", lambda *_: None)
    monkeypatch.setattr(module, "_role", shown)
    with pytest.raises(BedrockError, match=r"'slow'.* 60 s"):
        make(session, "slow", polling=polling)
