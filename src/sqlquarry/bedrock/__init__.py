"""MergedModel -> ImportedModel: into Amazon Bedrock with Custom Model Import, and answers out of it.

BedrockImporter.preflight -> upload (export dialect, manifest last) -> import job -> ImportedModel.generate
"""

from sqlquarry.bedrock.batch_inference import BatchFoundationModel
from sqlquarry.bedrock.client import ImportedModel
from sqlquarry.bedrock.cost import PriceTable, Usage
from sqlquarry.bedrock.foundation import FoundationModel
from sqlquarry.bedrock.importer import BedrockImporter
from sqlquarry.bedrock.parity import ParityReport, probe_parity
from sqlquarry.bedrock.preflight import Finding, PreflightReport
from sqlquarry.bedrock.role import create_import_role, role_documents

__all__ = [
    "BatchFoundationModel",
    "BedrockImporter",
    "Finding",
    "FoundationModel",
    "ImportedModel",
    "ParityReport",
    "PreflightReport",
    "PriceTable",
    "Usage",
    "create_import_role",
    "probe_parity",
    "role_documents",
]
