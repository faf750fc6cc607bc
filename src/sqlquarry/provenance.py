"""Name and type what a manifest says of where an artifact came from.

A manifest stores it as JSON under "provenance", and its reader may be a later version than its writer: fields that are
not known here are passed over.
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
    """What a finished training run took.

    Args:
        records: records that were learned.
        rows: packed rows of tokens.
        tokens_per_epoch: tokens of all rows, shared prefixes counted once.
        tokens_unshared: the same with prefixes counted for each record.
        steps: optimizer steps.
        learning_rate: the highest of the schedule.
        training_loss: mean loss over all answer tokens, nats per token.
        duration_s: time in the training loop.
        tokens_per_second: tokens of all epochs by that time.
        device: "cpu" or "cuda".
        processes: that trained together.
        shard_group_size: processes that hold the frozen base together; 1 if each holds all of it.
        trained_rows: ids of tokens whose embedding and head rows were trained, too.
        peak_memory_bytes: torch's highest allocation on the GPU; None on a CPU.
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
    """How a model agrees with the adapter on its training base, over the tokens of the gold answers.

    Args:
        kl: mean KL(adapter ‖ model) of the next-token distributions, nats.
        greedy_agreement: share of tokens with the same most likely token.
        answer_log_likelihood: mean log-likelihood of the gold tokens, nats per token.
        adapter_log_likelihood: the same of the adapter on its training base.
        answer_tokens: tokens compared.
        records: records they come from.
    """

    kl: float
    greedy_agreement: float
    answer_log_likelihood: float
    adapter_log_likelihood: float
    answer_tokens: int
    records: int


@dataclass(frozen=True, slots=True)
class Verification:
    """What a comparison found about a merged model.

    Args:
        agreement: with the adapter on its training base.
        coverage: share of the adapter's tensors that are in the merged model.
        largest_update: largest ‖ΔW‖/‖W‖ of a tensor.
        changed_tensors: how many tensors the adapter changes.
    """

    agreement: AdapterAgreement
    coverage: float
    largest_update: float
    changed_tensors: int


@dataclass(frozen=True, slots=True)
class MergedAdapter:
    """One of several adapters that were merged together.

    Args:
        digest: of its manifest.
        weight: its factor in the sum.
    """

    digest: str
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeSummary:
    """How a model was merged.

    Args:
        base: which weights were added to.
        dtype: of the merged weights; None if it is the base's.
        adapter_digest: of the adapter's manifest, or of the first one's.
        merged_tensors: how many tensors changed.
        mean_relative_update: mean ‖ΔW‖/‖W‖ over them; None if all were replaced.
        relative_updates: ‖ΔW‖/‖W‖ of each; None for one that was replaced.
        adapters: of a merge of several.
        candidates: how each base agreed with the adapter, if both were measured.
        verification: of the merged model; None if nothing was compared.
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
    """Make a dataclass of this module from JSON.

    Raises:
        ValueError: a field is missing or of another kind; the message names it.
    """
    made = _read(part, value, part.__name__)
    assert isinstance(made, part)  # noqa: S101 - `_read` makes what it is asked for
    return made


def _read(hint: object, value: object, place: str) -> object:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is types.UnionType:
        (kind,) = [one for one in arguments if one is not type(None)]
        return None if value is None else _read(kind, value, place)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        return _read_dataclass(hint, value, place)
    if origin is tuple and isinstance(value, list):
        return tuple(_read(arguments[0], one, f"{place}[{number}]") for number, one in enumerate(value))
    if origin is Mapping and isinstance(value, Mapping):
        return {str(name): _read(arguments[1], one, f"{place}.{name}") for name, one in value.items()}
    if origin is Literal and value in arguments:
        return value
    accepted = int | float if hint is float else hint
    if isinstance(accepted, type | types.UnionType) and isinstance(value, accepted) and not isinstance(value, bool):
        return value
    raise ValueError(f"{place} is {value!r:.80}")


def _read_dataclass(part: type, value: object, place: str) -> object:
    if not isinstance(value, Mapping):
        raise ValueError(f"{place} is {value!r:.80}")  # noqa: TRY004 - one error for every value of another kind
    hints = _hints(part)
    needed = [field.name for field in dataclasses.fields(part) if _is_needed(field)]
    if missing := [name for name in needed if name not in value]:
        raise ValueError(f"{place} has no {', '.join(missing)}")
    return part(**{name: _read(hint, value[name], f"{place}.{name}") for name, hint in hints.items() if name in value})


def _is_needed(field: dataclasses.Field[object]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@cache
def _hints(part: type) -> dict[str, object]:
    return get_type_hints(part)
