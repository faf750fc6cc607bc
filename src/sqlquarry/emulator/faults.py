"""Faults that tests switch on. Each fault sets what goes wrong, and how often or for how long.

    with LocalAWS(faults=[RoleUnknown(times=3)]) as aws:
        aws.faults.add(NotReady(duration_s=90), UploadReset(after_bytes=1 << 20))
        aws.faults.clear()

Codes and messages are the service's own if they are published (Bedrock API reference, S3 "Error responses", reports of
users).
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeVar

from sqlquarry.emulator.clock import Clock
from sqlquarry.errors import ConfigError

INVOCATIONS = "InvokeModel*|Converse*"


def is_named(operation: str, pattern: str) -> bool:
    """Return whether an operation matches a pattern, or one of several patterns separated by |."""
    return any(fnmatchcase(operation, one) for one in pattern.split("|"))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The base class of all faults.

    Args:
        times: how often the fault happens. `math.inf` means always.
        duration_s: seconds for which the fault is active after it is added, by the emulator's clock. Replaces `times`.
    """

    times: float = 1
    duration_s: float | None = None

    def __post_init__(self) -> None:
        if not self.times >= 1 or (self.duration_s is not None and not self.duration_s > 0):
            raise ConfigError(f"{self}: times must be at least 1, and duration_s must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused(Fault):
    """An operation answers with an error.

    Args:
        operation: name of the operation in the service's API ("CreateModelImportJob", "UploadPart"), or patterns
            ("List*|Get*").
        code: Bedrock's error code. S3 and IAM answer with their own code for it (`AccessDenied`, `SlowDown`, …).
        message: text of the error.
        key: pattern for the keys that are affected (S3 only).
    """

    operation: str = "*"
    code: str = "InternalServerException"
    message: str = "The server encountered an internal error. Try your request again."
    key: str = "*"

    def concerns(self, operation: str, key: str) -> bool:
        """Return whether the fault affects this request."""
        return is_named(operation, self.operation) and fnmatchcase(key, self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoleUnknown(Refused):
    """Bedrock does not know a new role yet."""

    operation: str = "CreateModelImportJob"
    code: str = "ValidationException"
    message: str = "The provided role ARN is invalid"


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaExceeded(Refused):
    """Another import job is running. To emulate the quota for imported models, set `message`."""

    operation: str = "CreateModelImportJob"
    code: str = "ServiceQuotaExceededException"
    message: str = "request a quota increase for Concurrent model import jobs"


@dataclass(frozen=True, slots=True, kw_only=True)
class Throttled(Refused):
    """There are too many requests."""

    operation: str = INVOCATIONS
    code: str = "ThrottlingException"
    message: str = "Too many requests, please wait before trying again."


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit(Throttled):
    """Requests within 1/`per_second` seconds after the last accepted request are throttled, until cleared."""

    per_second: float
    times: float = math.inf

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if not self.per_second > 0:
            raise ConfigError(f"{self}: per_second must be above 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class NotReady(Refused):
    """The model is being loaded."""

    operation: str = INVOCATIONS
    code: str = "ModelNotReadyException"
    message: str = "Model is not ready for inference. Wait and try again."


@dataclass(frozen=True, slots=True, kw_only=True)
class InternalError(Refused):
    """The service has an internal error."""

    operation: str = INVOCATIONS


@dataclass(frozen=True, slots=True, kw_only=True)
class AccessDenied(Refused):
    """A permission is missing, until cleared. SimulatePrincipalPolicy answers "explicitDeny" for the action."""

    operation: str
    code: str = "AccessDeniedException"
    message: str = "User is not authorized to perform this action"  # the service adds the action and the user
    times: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiredToken(Refused):
    """Temporary credentials have expired, until cleared."""

    code: str = "ExpiredTokenException"
    message: str = "The security token included in the request is expired"
    times: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFails(Fault):
    """The next import job ends Failed."""

    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class JobHangs(Fault):
    """Import jobs stay InProgress and block new jobs, until cleared."""

    times: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class InstanceQuota(Refused):
    """The account may not use this many instances for training.

    The message is SageMaker's, with its default quota of 0.
    """

    operation: str = "CreateTrainingJob"
    code: str = "ResourceLimitExceeded"
    message: str = (
        "The account-level service limit 'ml.g5.12xlarge for training job usage' is 0 Instances, with current "
        "utilization of 0 Instances and a request delta of 1 Instances. Please use AWS Service Quotas to request an "
        "increase for this quota. If AWS Service Quotas is not available, contact AWS support to request an increase "
        "for this quota."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFails(Fault):
    """The next training job ends Failed before it runs. The default message says that there is no capacity."""

    message: str = (
        "CapacityError: Unable to provision requested ML compute capacity. Please retry using a different ML instance "
        "type."
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class SpotInterruption(Fault):
    """A spot training job loses its instances once while it trains. It gets SIGTERM and starts again later.

    Args:
        after_s: seconds from the start of the job's processes to the interruption, by the emulator's clock.
        after_step: interrupt once a line of the job's log reports this step ("step 3", "step=3") or a later one.
            Replaces `after_s`.
        capacity_after_s: seconds until new instances are available.
    """

    after_s: float | None = None
    after_step: int | None = None
    capacity_after_s: float = 0.0

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if (self.after_s is None) == (self.after_step is None):
            raise ConfigError(f"{self}: set either after_s or after_step")


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadReset(Fault):
    """The connection breaks in the middle of a PutObject or UploadPart that is longer than `after_bytes`."""

    after_bytes: int = 0
    key: str = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerReset(Fault):
    """The connection breaks after `after_bytes` of the answer's body.

    At 0, it breaks before any answer, although the operation was carried out.
    """

    operation: str = INVOCATIONS
    after_bytes: int = 0
    key: str = "*"


@dataclass(frozen=True, slots=True, kw_only=True)
class NoText(Fault):
    """An answer contains no text (no `generation`, no choices)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CutAnswer(Fault):
    """An answer ends after `tokens` tokens with stop reason "length"."""

    tokens: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class SlowAnswers(Fault):
    """Every answer takes `latency_s` seconds longer, by the emulator's `sleep`, until cleared."""

    latency_s: float
    times: float = math.inf


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamBroken(Fault):
    """A stream ends with an error event after some chunks."""

    code: str = "modelStreamErrorException"
    message: str = "An error occurred while streaming the response. Retry your request."
    after_chunks: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelDeleted(Fault):
    """The model is deleted just before it is invoked."""


_Kind = TypeVar("_Kind", bound=Fault)


@dataclass(slots=True)
class _Active:
    fault: Fault
    left: float
    until: float
    free_at: float = -math.inf  # for a RateLimit: when the next request may come


class Faults:
    """The faults of one emulator. Tests may add and clear faults while the emulator runs.

    Args:
        clock: returns the time in seconds. `duration_s` and `per_second` are measured by it.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self._active: list[_Active] = []
        self._lock = threading.Lock()

    def add(self, *faults: Fault) -> None:
        """Switch faults on. If several faults match a request, the one that was added first happens."""
        now = self._clock()
        with self._lock:
            self._active += [
                _Active(f, f.times, math.inf) if f.duration_s is None else _Active(f, math.inf, now + f.duration_s)
                for f in faults
            ]

    def clear(self) -> None:
        """Switch every fault off."""
        with self._lock:
            self._active.clear()

    def pending(self) -> list[Fault]:
        """Return the faults that are still to happen."""
        with self._lock:
            self._drop_ended()
            return [active.fault for active in self._active]

    def take(self, kind: type[_Kind], fits: Callable[[_Kind], bool] = lambda _: True) -> _Kind | None:
        """Return the fault of this kind that happens now and count it as used, or return None if there is none."""
        with self._lock:
            self._drop_ended()
            for active in self._active:
                fault = active.fault
                if isinstance(fault, kind) and fits(fault) and not self._allows(active):
                    active.left -= 1
                    return fault
        return None

    def refusal(self, operation: str, key: str = "") -> Refused | None:
        """Return the error with which a request must be answered, or None if it must not fail."""
        return self.take(Refused, lambda fault: fault.concerns(operation, key))

    def is_active(self, kind: type[Fault]) -> bool:
        """Return whether a fault of this kind is on, without counting it as used."""
        return any(isinstance(fault, kind) for fault in self.pending())

    def denies(self, action: str) -> bool:
        """Return whether an IAM action ("s3:GetObject") is denied, without counting the fault as used."""
        names = (action, action.rpartition(":")[2])
        return any(
            isinstance(fault, Refused)
            and fault.code == "AccessDeniedException"
            and any(is_named(n, fault.operation) for n in names)
            for fault in self.pending()
        )

    def _allows(self, active: _Active) -> bool:
        if not isinstance(active.fault, RateLimit) or (now := self._clock()) < active.free_at:
            return False
        active.free_at = now + 1 / active.fault.per_second
        return True

    def _drop_ended(self) -> None:
        now = self._clock()
        self._active = [active for active in self._active if active.left >= 1 and now < active.until]


def all_faults(faults: Iterable[Fault]) -> tuple[Fault, ...]:
    """Check that all objects are faults, and return them.

    Raises:
        ConfigError: one of them is not a fault.
    """
    given = tuple(faults)
    if others := [fault for fault in given if not isinstance(fault, Fault)]:
        raise ConfigError(
            f"LocalAWS: faults contains {others[0]!r}, which is not a fault. Use the classes in "
            "sqlquarry.emulator.faults."
        )
    return given
