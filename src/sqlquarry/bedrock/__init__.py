"""MergedModel -> ImportedModel: into Amazon Bedrock with Custom Model Import.

BedrockImporter.preflight -> upload (export dialect, manifest last) -> import job -> ImportedModel.generate
"""

from sqlquarry.bedrock.importer import BedrockImporter
from sqlquarry.bedrock.preflight import Finding, PreflightReport
from sqlquarry.bedrock.role import create_import_role, role_documents

__all__ = ["BedrockImporter", "Finding", "PreflightReport", "create_import_role", "role_documents"]
