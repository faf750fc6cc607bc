"""MergedModel -> ImportedModel: into Amazon Bedrock with Custom Model Import, and answers out of it.

BedrockImporter.preflight -> upload (export dialect, manifest last) -> import job -> ImportedModel.generate
"""

from sqlquarry.bedrock.checks import Finding
from sqlquarry.bedrock.client import ImportedModel
from sqlquarry.bedrock.importer import BedrockImporter
from sqlquarry.bedrock.preflight import PreflightReport

__all__ = ["BedrockImporter", "Finding", "ImportedModel", "PreflightReport"]
