"""What moto lacks of the services around Bedrock, as far as an import asks them: simulated policies, and quotas.

Quotas: "Amazon Bedrock endpoints and quotas" (AWS General Reference), which tells the codes of adjustable quotas only;
that of concurrent jobs is as monitoring tools of users have it, and nothing here or in `bedrock` asks by it.
"""

from __future__ import annotations

from typing import Any

from sqlquarry.emulator.bedrock.imports import MAX_IMPORTED_MODELS
from sqlquarry.emulator.faults import Faults
from sqlquarry.emulator.requests.api import ApiError, Parameters

# Code, name, value, adjustable.
_QUOTAS = (
    ("L-45B04988", "Imported models per account", MAX_IMPORTED_MODELS, True),
    ("L-5F098EFA", "Concurrent model import jobs", 1, False),
)


class Account:
    """Operations of IAM and Service Quotas; each maps parameters to an answer.

    Args:
        faults: what `AccessDenied` denies there is denied in simulations too; all else is allowed.
        arn_prefix: ``arn:aws:servicequotas:<region>:<account>``.
    """

    def __init__(self, faults: Faults, arn_prefix: str) -> None:
        self._faults, self._arn_prefix = faults, arn_prefix

    def simulate_principal_policy(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - IAM's own operation
        results = [
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

    def get_service_quota(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - Service Quotas' own operation
        for quota in self._quotas(parameters):
            if quota["QuotaCode"] == parameters["QuotaCode"]:
                return {"Quota": quota}
        raise ApiError("NoSuchResourceException", "The request failed because the specified quota does not exist")

    def list_service_quotas(self, parameters: Parameters) -> dict[str, Any]:  # noqa: D102 - likewise
        return {"Quotas": self._quotas(parameters)}

    def _quotas(self, parameters: Parameters) -> list[dict[str, Any]]:
        if parameters["ServiceCode"] != "bedrock":
            raise ApiError("NoSuchResourceException", "This emulator knows the quotas of bedrock only")
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
