"""The quotas of Bedrock, as far as an import asks for them, which moto does not have.

Source: "Amazon Bedrock endpoints and quotas" (AWS General Reference), which gives the codes of adjustable quotas only;
the code of concurrent jobs is the one that users' monitoring tools have, and nothing here or in `bedrock` asks by it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlquarry.emulator.bedrock.control_plane import MAX_IMPORTED_MODELS
from sqlquarry.emulator.requests.errors import ApiError
from sqlquarry.emulator.requests.parameters import ApiAnswer

if TYPE_CHECKING:
    from mypy_boto3_service_quotas.type_defs import (
        GetServiceQuotaRequestTypeDef,
        ListServiceQuotasRequestTypeDef,
        ServiceQuotaTypeDef,
    )

# Code, name, value, adjustable.
_QUOTAS = (
    ("L-45B04988", "Imported models per account", MAX_IMPORTED_MODELS, True),
    ("L-5F098EFA", "Concurrent model import jobs", 1, False),
)


class BedrockQuotas:
    """The operations of Service Quotas; each maps parameters to an answer.

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
