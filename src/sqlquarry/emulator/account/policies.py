"""IAM's simulation of policies, which moto does not have."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlquarry.emulator.faults import Faults
from sqlquarry.emulator.requests.parameters import ApiAnswer

if TYPE_CHECKING:
    from mypy_boto3_iam.type_defs import EvaluationResultTypeDef, SimulatePrincipalPolicyRequestTypeDef


class PolicySimulator:
    """IAM's operation that says what a principal may do.

    Args:
        faults: actions that `AccessDenied` denies are denied here too; all others are allowed.
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
