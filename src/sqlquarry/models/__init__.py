"""Models that answer questions through `generate`: local weights, imported models and foundation models."""

from sqlquarry.models.foundation.batch_inference import BatchFoundationModel
from sqlquarry.models.foundation.model import FoundationModel
from sqlquarry.models.imported.cost import PriceTable, Usage
from sqlquarry.models.imported.model import ImportedModel
from sqlquarry.models.local.constraints import AnswerForm
from sqlquarry.models.local.decoding import DecodingOptions
from sqlquarry.models.local.model import LocalModel
from sqlquarry.models.local.sampling import Sampling
from sqlquarry.models.parity import ParityReport, PromptComparison, probe_parity
from sqlquarry.models.retries import RetryPolicy

__all__ = [
    "AnswerForm",
    "BatchFoundationModel",
    "DecodingOptions",
    "FoundationModel",
    "ImportedModel",
    "LocalModel",
    "ParityReport",
    "PriceTable",
    "PromptComparison",
    "RetryPolicy",
    "Sampling",
    "Usage",
    "probe_parity",
]
