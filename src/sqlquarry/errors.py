"""All errors that SQLQuarry raises on purpose.

    SQLQuarryError
    ├── MissingExtraError             a package of an optional extra is not installed (also an ImportError)
    ├── ConfigError                   options are invalid (also a ValueError)
    ├── MetadataError                 a model's metadata file is damaged or hostile (also a ValueError)
    ├── DataError                     records cannot be read or used
    │   ├── RecordError               one record is invalid
    │   └── DatabaseError             a live database or a query on it cannot be read
    ├── ArtifactError                 a directory between two stages cannot be used
    │   ├── IncompleteArtifactError   the manifest or prompt is missing, so a stage did not finish
    │   ├── CorruptArtifactError      a file is missing or differs from the manifest
    │   ├── OutputInUseError          another process is writing the directory
    │   └── PromptMismatchError       the prompt differs from the one of the training
    ├── ModelError                    a base model cannot be used
    │   ├── UnsupportedModelError     its architecture or format is unsupported, or files are missing
    │   ├── GatedModelError           its license must be accepted, or a token is missing
    │   └── DeviceError               the GPUs are missing, too few, too small or too old
    ├── TrainingError                 training failed
    │   └── TrainingInterruptedError  training was stopped before its end. The same call resumes it
    ├── AdoptionError                 an adapter or model made elsewhere cannot be used
    ├── MergeError                    adapter and base model do not fit together
    │   ├── UnsupportedAdapterError   merging this adapter would give a wrong model
    │   └── UnusedTensorsError        adapter tensors match no tensor of the base model
    ├── BedrockError                  importing to Amazon Bedrock or generating there failed
    │   ├── PreflightError            the import would fail
    │   ├── ImportJobError            the import job failed
    │   ├── ImportTimeoutError        the import job is still running
    │   ├── ModelNotReadyError        the model did not become ready in time
    │   └── GenerationError           a response has an unknown format or no text
    ├── JudgingError                  grading could not start
    │   └── JudgeFailedError          an LLM judge failed too many times in a row
    └── EmulatorError                 the local AWS could not start, or the installed moto does not fit

Each message says what happened, with which value, and what to do next. Messages may quote records, SQL, file names and
server responses, so `str(error)` escapes characters that a terminal would interpret. `args` holds the original text.
"""

from typing import Any

from sqlquarry.text import visible

__all__ = [
    "AdoptionError",
    "ArtifactError",
    "BedrockError",
    "ConfigError",
    "CorruptArtifactError",
    "DataError",
    "DatabaseError",
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
    """Base class of all errors in this library. Its message is safe to print."""

    def __str__(self) -> str:
        return visible(super().__str__())


class MissingExtraError(SQLQuarryError, ImportError):
    """A package of an optional extra is not installed. The message contains the pip command."""


class ConfigError(SQLQuarryError, ValueError):
    """One or more options are invalid. The message lists every bad field."""


class MetadataError(SQLQuarryError, ValueError):
    """A file that describes a model or an artifact is damaged, too large, or refers to files outside its directory."""


class DataError(SQLQuarryError):
    """Records cannot be read or used."""


class RecordError(DataError):
    """One record is invalid. The message gives its file and line, or its index in the sequence."""


class DatabaseError(DataError):
    """A live database cannot be read, or a query on it fails.

    Attributes:
        kind: the kind of failure, such as "unavailable", "timeout" or "syntax". "" if no query ran.
    """

    def __init__(self, *args: object, kind: str = "") -> None:
        super().__init__(*args)
        self.kind = kind


class ArtifactError(SQLQuarryError):
    """A directory or S3 prefix between two stages cannot be used."""


class IncompleteArtifactError(ArtifactError):
    """The manifest is missing, so the stage that writes it did not finish. Or prompt.json is missing or was edited."""


class CorruptArtifactError(ArtifactError):
    """A file is missing, or its SHA-256 differs from the one in the manifest."""


class OutputInUseError(ArtifactError):
    """Another process is writing to the directory or prefix."""


class PromptMismatchError(ArtifactError):
    """A model is about to be used with another prompt than in training."""


class ModelError(SQLQuarryError):
    """A base model cannot be used."""


class UnsupportedModelError(ModelError):
    """The architecture is unknown, the checkpoint is quantized in an unsupported way, or files are missing."""


class GatedModelError(ModelError):
    """The model's license must be accepted first, or the access token is missing."""


class DeviceError(ModelError):
    """CUDA is not available, or the GPUs are too few, lack memory or do not support bfloat16."""


class TrainingError(SQLQuarryError):
    """Training failed."""


class TrainingInterruptedError(TrainingError):
    """A signal (a spot notice, Ctrl-C), a time limit or `stop` ended training early. The same call resumes it."""


class AdoptionError(SQLQuarryError):
    """An adapter or model made elsewhere cannot be used."""


class MergeError(SQLQuarryError):
    """Adapter and base model do not fit together."""


class UnsupportedAdapterError(MergeError):
    """Merging this adapter would give a wrong model. The message says why."""


class UnusedTensorsError(MergeError):
    """Some adapter tensors match no tensor of the base model. The message lists them."""


class BedrockError(SQLQuarryError):
    """Importing a model into Amazon Bedrock, or generating with one, failed.

    Attributes:
        partial: the answers so far if a batch ended early, in input order. A missing answer is None.
    """

    partial: tuple[Any, ...] = ()


class PreflightError(BedrockError):
    """The import would fail. The message lists every finding with its fix."""


class ImportJobError(BedrockError):
    """The import job ended with status Failed. The message contains the reason that the service gave."""


class ImportTimeoutError(BedrockError):
    """The import job is still running. The message contains its ARN, which is needed to attach to the job later."""


class ModelNotReadyError(BedrockError):
    """The model was still cold at the end of the waiting time."""


class GenerationError(BedrockError):
    """A response has none of the known formats, or contains no text."""


class JudgingError(SQLQuarryError):
    """Grading could not start. A wrong answer is never an error."""


class JudgeFailedError(JudgingError):
    """An LLM judge failed so often in a row that the run was stopped.

    Attributes:
        partial: the finished judgements, in the order of the records. A missing judgement is None.
    """

    partial: tuple[Any, ...] = ()


class EmulatorError(SQLQuarryError):
    """The local AWS could not start, or it does not work with the installed version of moto."""


def error_class(name: object) -> type[SQLQuarryError] | None:
    """Return the error class with this name, for example from a file of another process. None if there is none."""
    found = globals().get(name) if isinstance(name, str) and name in __all__ else None
    return found if isinstance(found, type) and issubclass(found, SQLQuarryError) else None
