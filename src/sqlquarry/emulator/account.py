"""The account around Bedrock: its role, and two services that moto lacks (policy simulation and Bedrock's quotas)."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlquarry.emulator.bedrock.control_plane import MAX_IMPORTED_MODELS
from sqlquarry.emulator.faults import Faults
from sqlquarry.emulator.requests.errors import ApiError
from sqlquarry.emulator.requests.parameters import ApiAnswer

if TYPE_CHECKING:
    from mypy_boto3_iam import IAMClient
    from mypy_boto3_iam.type_defs import EvaluationResultTypeDef, SimulatePrincipalPolicyRequestTypeDef
    from mypy_boto3_service_quotas.type_defs import (
        GetServiceQuotaRequestTypeDef,
        ListServiceQuotasRequestTypeDef,
        ServiceQuotaTypeDef,
    )

# Code, name, value and adjustability of the Bedrock quotas that matter for an import.
# Source: "Amazon Bedrock endpoints and quotas" (AWS General Reference), which lists the codes of adjustable quotas
# only. The code for concurrent jobs comes from users' monitoring tools, and the library does not look this quota up.
_QUOTAS = (
    ("L-45B04988", "Imported models per account", MAX_IMPORTED_MODELS, True),
    ("L-5F098EFA", "Concurrent model import jobs", 1, False),
)


def create_role(iam: IAMClient, name: str, bucket: str, account: str) -> str:
    """Create a service role and return its ARN. Bedrock and SageMaker may assume it.

    Source: "Create a service role for model import" (Bedrock user guide).
    """
    trust = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Principal": {"Service": ["bedrock.amazonaws.com", "sagemaker.amazonaws.com"]},
                "Action": "sts:AssumeRole",
                "Condition": {"StringEquals": {"aws:SourceAccount": account}},
            }
        ],
    }
    access = {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": ["s3:GetObject", "s3:PutObject", "s3:ListBucket"],
                "Resource": [f"arn:aws:s3:::{bucket}", f"arn:aws:s3:::{bucket}/*"],
            }
        ],
    }
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=json.dumps(trust))
    iam.put_role_policy(RoleName=name, PolicyName="read-models", PolicyDocument=json.dumps(access))
    return role["Role"]["Arn"]


class PolicySimulator:
    """IAM's operation SimulatePrincipalPolicy.

    Args:
        faults: actions that an `AccessDenied` fault denies are denied here too. All other actions are allowed.
    """

    def __init__(self, faults: Faults) -> None:
        self._faults = faults

    def simulate_principal_policy(self, parameters: SimulatePrincipalPolicyRequestTypeDef) -> ApiAnswer:
        """Return a decision for each action and resource."""
        results: list[EvaluationResultTypeDef] = [
            {
                "EvalActionName": action,
                "EvalResourceName": resource,
                "EvalDecision": "explicitDeny" if self._faults.denies(action) else "allowed",
                "MatchedStatements": [],
                "MissingContextValues": [],
            }
            for action in parameters["ActionNames"]
            for resource in parameters.get("ResourceArns") or ["*"]
        ]
        return {"EvaluationResults": results, "IsTruncated": False}


class BedrockQuotas:
    """The operations of Service Quotas. Each maps parameters to an answer.

    Args:
        arn_prefix: ``arn:aws:servicequotas:<region>:<account>``.
    """

    def __init__(self, arn_prefix: str) -> None:
        self._arn_prefix = arn_prefix

    def get_service_quota(self, parameters: GetServiceQuotaRequestTypeDef) -> ApiAnswer:
        """Return one quota."""
        for quota in self._quotas(parameters["ServiceCode"]):
            if quota["QuotaCode"] == parameters["QuotaCode"]:
                return {"Quota": quota}
        raise ApiError("NoSuchResourceException", "The request failed because the specified quota does not exist")

    def list_service_quotas(self, parameters: ListServiceQuotasRequestTypeDef) -> ApiAnswer:
        """Return every quota."""
        return {"Quotas": self._quotas(parameters["ServiceCode"])}

    def _quotas(self, service: str) -> list[ServiceQuotaTypeDef]:
        if service != "bedrock":
            raise ApiError("NoSuchResourceException", f"this emulator has quotas for bedrock only, not for {service}")
        return [
            {
                "ServiceCode": "bedrock",
                "ServiceName": "Amazon Bedrock",
                "QuotaArn": f"{self._arn_prefix}:bedrock/{code}",
                "QuotaCode": code,
                "QuotaName": name,
                "Value": float(value),
                "Unit": "None",
                "Adjustable": adjustable,
                "GlobalQuota": False,
            }
            for code, name, value, adjustable in _QUOTAS
        ]
