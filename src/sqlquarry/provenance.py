"""Typed parts of an artifact's provenance: the training run, the merge and its verification.

A manifest stores them as JSON under "provenance". Another version may have written the manifest, so unknown fields are
ignored.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

_Part = TypeVar("_Part")


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingRun:
    """Metrics of a finished training run.

    Args:
        records: number of training records.
        rows: number of packed rows.
        tokens_per_epoch: tokens in all rows. A shared prefix counts once.
        tokens_unshared: tokens if each record repeated its prefix.
        steps: number of optimizer steps.
        learning_rate: peak of the schedule.
        training_loss: mean loss over all answer tokens, nats per token.
        duration_s: seconds in the training loop.
        tokens_per_second: tokens of all epochs divided by `duration_s`.
        device: "cpu" or "cuda".
        processes: number of processes that trained together.
        shard_group_size: number of processes that share one copy of the frozen base. 1 if each has a complete copy.
        trained_rows: token ids whose embedding and head rows were also trained.
        peak_memory_bytes: torch's peak allocation on the GPU. None on a CPU.
    """

    records: int
    rows: int
    tokens_per_epoch: int
    tokens_unshared: int
    steps: int
    learning_rate: float
    training_loss: float
    duration_s: float
    tokens_per_second: float
    device: str
    processes: int
    shard_group_size: int
    trained_rows: tuple[int, ...]
    peak_memory_bytes: int | None


@dataclass(frozen=True, slots=True)
class AdapterAgreement:
    """Agreement of a merged model with the adapter on its training base, measured on the tokens of gold answers.

    Args:
        kl: mean KL(adapter ‖ model) of the next-token distributions, nats.
        greedy_agreement: share of positions where both give the same most likely token.
        answer_log_likelihood: mean log-likelihood of the gold tokens under the model, nats per token.
        adapter_log_likelihood: the same under the adapter on its training base.
        answer_tokens: number of compared tokens.
        records: number of records that the tokens come from.
    """

    kl: float
    greedy_agreement: float
    answer_log_likelihood: float
    adapter_log_likelihood: float
    answer_tokens: int
    records: int


@dataclass(frozen=True, slots=True)
class Verification:
    """Result of comparing a merged model with its adapter.

    Args:
        agreement: agreement with the adapter on its training base.
        coverage: share of the adapter's tensors that are in the merged model.
        largest_update: largest ‖ΔW‖/‖W‖ of a tensor.
        changed_tensors: number of tensors that the adapter changes.
    """

    agreement: AdapterAgreement
    coverage: float
    largest_update: float
    changed_tensors: int


@dataclass(frozen=True, slots=True)
class MergedAdapter:
    """One of several adapters that were merged together.

    Args:
        digest: digest of the adapter's manifest.
        weight: factor of the adapter in the weighted sum.
    """

    digest: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """Summary of a merge.

    Args:
        base: the base weights that the adapter was added to.
        dtype: dtype of the merged weights. None if it is the base model's.
        adapter_digest: digest of the manifest of the adapter, or of the first one if there are several.
        merged_tensors: number of tensors that changed.
        mean_relative_update: mean ‖ΔW‖/‖W‖ over these tensors. None if all were replaced.
        relative_updates: ‖ΔW‖/‖W‖ by tensor name. None for a tensor that was replaced.
        adapters: all adapters of a merge of several.
        candidates: agreement of each base with the adapter, if both bases were measured.
        verification: comparison with the adapter. None if nothing was compared.
    """

    base: Literal["original", "dequantized"]
    dtype: str | None = None
    adapter_digest: str
    merged_tensors: int
    mean_relative_update: float | None
    relative_updates: Mapping[str, float | None]
    adapters: tuple[MergedAdapter, ...] = ()
    candidates: Mapping[str, AdapterAgreement] = dataclasses.field(default_factory=dict)
    verification: Verification | None = None


def read_part(part: type[_Part], value: object) -> _Part:
    """Build a dataclass of this module from parsed JSON.

    Raises:
        ValueError: a field is missing or has a wrong type. The message contains its path.
    """
    result = _read(part, value, part.__name__)
    assert isinstance(result, part)  # noqa: S101 - for the type checker: `_read` returns an object of the hinted class
    return result


def _read(hint: object, value: object, path: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        (kind,) = [one for one in arguments if one is not type(None)]
        return None if value is None else _read(kind, value, path)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, value, path)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], one, f"{path}[{index}]") for index, one in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {str(name): _read(arguments[1], one, f"{path}.{name}") for name, one in value.items()}
    if origin is Literal and value in arguments:
        return value
    accepted = int | float if hint is float else hint
    if isinstance(accepted, type | types.UnionType) and isinstance(value, accepted) and not isinstance(value, bool):
        return value
    raise ValueError(f"{path} is {value!r:.80}")


def _read_dataclass(part: type, value: object, path: str) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"{path} is {value!r:.80}")  # noqa: TRY004 - the same class for every value of a wrong type
    hints = _hints(part)
    required = [field.name for field in dataclasses.fields(part) if _is_required(field)]
    if missing := [name for name in required if name not in value]:
        raise ValueError(f"{path} has no {', '.join(missing)}")
    return part(**{name: _read(hint, value[name], f"{path}.{name}") for name, hint in hints.items() if name in value})


def _is_required(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@cache
def _hints(part: type) -> dict[str, object]:
    return get_type_hints(part)
