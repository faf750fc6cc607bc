"""Every error that SQLQuarry raises on purpose.

    SQLQuarryError
    ├── MissingExtraError             a package of an optional extra is not installed (also an ImportError)
    ├── ConfigError                   options that cannot work, all bad fields at once (also a ValueError)
    ├── MetadataError                 a file that describes a model is damaged or hostile (also a ValueError)
    ├── DataError                     records that cannot be read or used
    │   └── RecordError               one bad record: file and line, or its place in the sequence
    ├── ArtifactError                 a directory between two stages cannot be used
    │   ├── IncompleteArtifactError   no manifest: the stage that writes it did not finish
    │   ├── CorruptArtifactError      a file is missing or differs from its SHA-256 in the manifest
    │   ├── OutputInUseError          another process is writing the directory
    │   └── PromptMismatchError       trained with one prompt, about to be served with another
    ├── ModelError                    a base model that cannot be used
    │   ├── UnsupportedModelError     architecture, quantised checkpoint, missing files
    │   ├── GatedModelError           a licence must be accepted, or a token is missing
    │   └── DeviceError               CUDA asked for where there is none
    ├── TrainingError                 training failed
    │   └── TrainingInterruptedError  a signal stopped it after a whole step; the same call resumes there
    ├── MergeError                    adapter and base do not make one model
    │   ├── UnsupportedAdapterError   an adapter whose merge would be wrong
    │   └── UnusedTensorsError        adapter tensors that no base tensor took up
    ├── BedrockError                  the way into, or an answer out of, Amazon Bedrock
    │   ├── PreflightError            the import would fail; every finding is listed
    │   ├── ImportJobError            the import job ended Failed
    │   ├── ImportTimeoutError        the job is still running; its ARN is kept for attaching
    │   ├── ModelNotReadyError        the model stayed cold for the whole budget
    │   └── GenerationError           an answer that is not one of the known response shapes
    ├── JudgingError                  grading could not start (a wrong answer is never an error)
    │   └── JudgeFailedError          an LLM judge failed again and again; what it finished is kept
    └── EmulatorError                 the local AWS could not start, or moto changed underneath it

Messages say what happened, with which value, and what to do next. They may quote records, SQL, file names and messages
of servers, so `str(error)` shows what a terminal would obey as visible text; `args` keep it as it came.
"""

from typing import Any

from sqlquarry.text import visible

__all__ = [
    "ArtifactError",
    "BedrockError",
    "ConfigError",
    "CorruptArtifactError",
    "DataError",
    "DeviceError",
    "EmulatorError",
    "GatedModelError",
    "GenerationError",
    "ImportJobError",
    "ImportTimeoutError",
    "IncompleteArtifactError",
    "JudgeFailedError",
    "JudgingError",
    "MergeError",
    "MetadataError",
    "MissingExtraError",
    "ModelError",
    "ModelNotReadyError",
    "OutputInUseError",
    "PreflightError",
    "PromptMismatchError",
    "RecordError",
    "SQLQuarryError",
    "TrainingError",
    "TrainingInterruptedError",
    "UnsupportedAdapterError",
    "UnsupportedModelError",
    "UnusedTensorsError",
]


class SQLQuarryError(Exception):
    """Base of every error in this library; its text is safe to print."""

    def __str__(self) -> str:
        return visible(super().__str__())


class MissingExtraError(SQLQuarryError, ImportError):
    """A package of an optional extra is not installed; the message holds the pip command."""


class ConfigError(SQLQuarryError, ValueError):
    """Options that cannot work; the message names every bad field."""


class MetadataError(SQLQuarryError, ValueError):
    """A file that describes a model or an artifact is damaged, too large, or names files outside its folder."""


class DataError(SQLQuarryError):
    """Records that cannot be read or used."""


class RecordError(DataError):
    """One bad record, with its file and line or its place in the sequence."""


class ArtifactError(SQLQuarryError):
    """A directory between two stages cannot be used."""


class IncompleteArtifactError(ArtifactError):
    """The directory has no manifest, so the stage that writes it did not finish."""


class CorruptArtifactError(ArtifactError):
    """A file is missing or differs from the SHA-256 in the manifest."""


class OutputInUseError(ArtifactError):
    """Another process is writing the directory or prefix."""


class PromptMismatchError(ArtifactError):
    """Trained with one prompt, about to be used with another."""


class ModelError(SQLQuarryError):
    """A base model that cannot be used."""


class UnsupportedModelError(ModelError):
    """Unknown architecture, quantised checkpoint, or files missing."""


class GatedModelError(ModelError):
    """The model's licence must be accepted first, or the token is missing."""


class DeviceError(ModelError):
    """CUDA was asked for where there is none."""


class TrainingError(SQLQuarryError):
    """Training failed."""


class TrainingInterruptedError(TrainingError):
    """A signal (a spot notice, Ctrl-C) stopped training after a whole step; the same call resumes there."""


class MergeError(SQLQuarryError):
    """Adapter and base do not make one model."""


class UnsupportedAdapterError(MergeError):
    """An adapter whose merge would be wrong; the message says why."""


class UnusedTensorsError(MergeError):
    """Adapter tensors that no base tensor took up; the message names them."""


class BedrockError(SQLQuarryError):
    """Something on the way into, or out of, Amazon Bedrock.

    Attributes:
        partial: where a batch ended early, its answers so far, in order, None where one is missing.
    """

    partial: tuple[Any, ...] = ()


class PreflightError(BedrockError):
    """The import would fail; the message lists every finding with its fix."""


class ImportJobError(BedrockError):
    """The import job ended Failed; the message holds the service's reason."""


class ImportTimeoutError(BedrockError):
    """The import job is still running; the message holds its ARN."""


class ModelNotReadyError(BedrockError):
    """The model stayed cold for the whole waiting budget."""


class GenerationError(BedrockError):
    """An answer that is not one of the known response shapes."""


class JudgingError(SQLQuarryError):
    """Grading could not start."""


class JudgeFailedError(JudgingError):
    """An LLM judge failed so often in a row that the run was ended.

    Attributes:
        partial: the judgements that were finished, in the order of the records, None where one is missing.
    """

    partial: tuple[Any, ...] = ()


class EmulatorError(SQLQuarryError):
    """The local AWS could not start, or moto changed underneath it."""


def error_class(name: object) -> type[SQLQuarryError] | None:
    """Return the class of this name, such as another process left it in a file; None if it is not one of these."""
    found = globals().get(name) if isinstance(name, str) and name in __all__ else None
    return found if isinstance(found, type) and issubclass(found, SQLQuarryError) else None
