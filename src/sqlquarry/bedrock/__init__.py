"""Import a model into Amazon Bedrock with Custom Model Import: MergedModel -> ImportedModel.

BedrockImporter.preflight -> upload (export dialect, manifest last) -> import job -> ImportedModel.generate
"""

from sqlquarry.bedrock.import_request import VpcConfig
from sqlquarry.bedrock.import_role import create_import_role
from sqlquarry.bedrock.importer import BedrockImporter
from sqlquarry.bedrock.preflight import PreflightFinding, PreflightReport
from sqlquarry.bedrock.role_documents import role_documents

__all__ = [
    "BedrockImporter",
    "PreflightFinding",
    "PreflightReport",
    "VpcConfig",
    "create_import_role",
    "role_documents",
]
