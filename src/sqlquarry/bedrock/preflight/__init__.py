"""Find everything that would make an import fail before any upload, by reading only headers and small files.

preflight -> source (directory | S3) -> model (checkpoint -> config, tokenizer, tensors); request, account -> report
repair    -> fix the findings that have a mechanical fix, in place or into a new directory
"""

from sqlquarry.bedrock.preflight.findings import PreflightFinding, PreflightReport
from sqlquarry.bedrock.preflight.repairs import FileRepair, repair
from sqlquarry.bedrock.preflight.run import preflight

__all__ = ["FileRepair", "PreflightFinding", "PreflightReport", "preflight", "repair"]
