"""Train a text-to-SQL model on question/schema/SQL records, serve it on Amazon Bedrock and judge its answers.

    records ─ PromptFormatter ─> conversations ─ QLoRAFSDPTrainer ─> adapter ─ AdapterMerger ─> merged safetensors
            ─ BedrockImporter ─> imported model ─ generate ─> SQL ─ SQLJudge ─> report

Public names are loaded on first use, so `import sqlquarry` needs neither torch nor boto3.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Public name -> the module that defines it.
_HOMES = {
    "AdapterCheckpoint": "artifacts",
    "AdapterMerger": "merging",
    "BatchFoundationModel": "models",
    "BedrockImporter": "bedrock",
    "ComparisonOptions": "judging",
    "DataReport": "data",
    "Database": "data",
    "EquivalenceGrader": "judging",
    "Estimate": "judging",
    "ExactGrader": "judging",
    "ExecutionGrader": "judging",
    "ExecutionLimits": "judging",
    "FoundationModel": "models",
    "Generation": "answers",
    "ImportedModel": "models",
    "Judgement": "answers",
    "LLMGrader": "judging",
    "LocalModel": "models",
    "MeanScore": "judging",
    "MergedModel": "artifacts",
    "ParityReport": "models",
    "Polling": "aws",
    "PriceTable": "models",
    "PromptFormatter": "prompt",
    "QLoRAFSDPTrainer": "training",
    "Record": "records",
    "Records": "data",
    "Repair": "data",
    "Report": "judging",
    "RetryPolicy": "models",
    "SQLJudge": "judging",
    "SQLQuarryError": "errors",
    "SageMakerLauncher": "sagemaker",
    "SynthesizedDatabases": "judging",
    "TextGenerator": "answers",
    "TrainingConfig": "training",
    "Usage": "models",
    "adopt_adapter": "adoption",
    "adopt_model": "adoption",
    "calibrate": "judging",
    "compare_reports": "judging",
    "compare_slices": "judging",
    "compare_stages": "judging",
    "count_mistakes": "judging",
    "find_disagreements": "judging",
    "load_records": "data",
    "probe_parity": "models",
    "propose_records": "data",
    "records_from_log": "data",
    "results_equal": "judging",
    "run_pipeline": "pipeline",
    "sample_databases": "data",
    "sample_records": "data",
    "score_slices": "judging",
    "slices": "judging",
    "write_html": "judging",
    "write_junit": "judging",
    "write_markdown": "judging",
}

__all__ = [
    "AdapterCheckpoint",
    "AdapterMerger",
    "BatchFoundationModel",
    "BedrockImporter",
    "ComparisonOptions",
    "DataReport",
    "Database",
    "EquivalenceGrader",
    "Estimate",
    "ExactGrader",
    "ExecutionGrader",
    "ExecutionLimits",
    "FoundationModel",
    "Generation",
    "ImportedModel",
    "Judgement",
    "LLMGrader",
    "LocalModel",
    "MeanScore",
    "MergedModel",
    "ParityReport",
    "Polling",
    "PriceTable",
    "PromptFormatter",
    "QLoRAFSDPTrainer",
    "Record",
    "Records",
    "Repair",
    "Report",
    "RetryPolicy",
    "SQLJudge",
    "SQLQuarryError",
    "SageMakerLauncher",
    "SynthesizedDatabases",
    "TextGenerator",
    "TrainingConfig",
    "Usage",
    "adopt_adapter",
    "adopt_model",
    "calibrate",
    "compare_reports",
    "compare_slices",
    "compare_stages",
    "count_mistakes",
    "find_disagreements",
    "load_records",
    "probe_parity",
    "propose_records",
    "records_from_log",
    "results_equal",
    "run_pipeline",
    "sample_databases",
    "sample_records",
    "score_slices",
    "slices",
    "write_html",
    "write_junit",
    "write_markdown",
]

if TYPE_CHECKING:
    from sqlquarry.adoption import adopt_adapter, adopt_model
    from sqlquarry.answers import Generation, Judgement, TextGenerator
    from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
    from sqlquarry.aws import Polling
    from sqlquarry.bedrock import BedrockImporter
    from sqlquarry.data import (
        Database,
        DataReport,
        Records,
        Repair,
        load_records,
        propose_records,
        records_from_log,
        sample_databases,
        sample_records,
    )
    from sqlquarry.errors import SQLQuarryError
    from sqlquarry.judging import (
        ComparisonOptions,
        EquivalenceGrader,
        Estimate,
        ExactGrader,
        ExecutionGrader,
        ExecutionLimits,
        LLMGrader,
        MeanScore,
        Report,
        SQLJudge,
        SynthesizedDatabases,
        calibrate,
        compare_reports,
        compare_slices,
        compare_stages,
        count_mistakes,
        find_disagreements,
        results_equal,
        score_slices,
        slices,
        write_html,
        write_junit,
        write_markdown,
    )
    from sqlquarry.merging import AdapterMerger
    from sqlquarry.models import (
        BatchFoundationModel,
        FoundationModel,
        ImportedModel,
        LocalModel,
        ParityReport,
        PriceTable,
        RetryPolicy,
        Usage,
        probe_parity,
    )
    from sqlquarry.pipeline import run_pipeline
    from sqlquarry.prompt import PromptFormatter
    from sqlquarry.records import Record
    from sqlquarry.sagemaker import SageMakerLauncher
    from sqlquarry.training import QLoRAFSDPTrainer, TrainingConfig
else:
    # Hidden from type checkers. If they saw this function, they would accept any misspelled name from this package.
    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'sqlquarry' has no attribute {name!r}")
        value = getattr(import_module(f"sqlquarry.{_HOMES[name]}"), name)
        globals()[name] = value
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
