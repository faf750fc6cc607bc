"""Check a CreateTrainingJob request for credentials and against the rules in botocore's model before it is sent."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from sqlquarry.credentials import credentials_in
from sqlquarry.errors import ConfigError

if TYPE_CHECKING:
    from botocore.model import ServiceModel, Shape


def check_request(request: Mapping[str, object], service_model: ServiceModel) -> None:
    """Refuse a request that contains a credential or that the service would refuse.

    Args:
        request: the CreateTrainingJob request.
        service_model: ``client.meta.service_model`` of a SageMaker client.

    Raises:
        ConfigError: a part of the request contains a credential, or breaks a rule of the service.
    """
    if exposed := credential_problems(request):  # first, because `violations` shows values
        raise ConfigError(f"SageMakerLauncher: {'; '.join(exposed)}")
    if wrong := violations(request, service_model):
        raise ConfigError(f"SageMaker would refuse the job: {'; '.join(wrong)}")


def credential_problems(request: Mapping[str, object]) -> list[str]:
    """List the parts of a request with credentials, which everybody who may describe the job could read."""
    return [
        f"{place} contains {kind} (not shown), so leave it out, or give the ARN of a variable's secret in secret_arns"
        for place, kind in credentials_in(request)
    ]


def violations(request: Mapping[str, object], service_model: ServiceModel) -> list[str]:
    """List everything that the service would refuse: types, names, patterns, lengths and values in botocore's model.

    Args:
        request: the CreateTrainingJob request.
        service_model: ``client.meta.service_model`` of a SageMaker client.
    """
    from botocore.validate import ParamValidator

    shape = service_model.shape_for("CreateTrainingJobRequest")
    report = ParamValidator().validate(request, shape)
    if report.has_errors():
        return [report.generate_report()]
    return [problem for path, value, part in _parts(request, shape, "") for problem in _broken_rules(path, value, part)]


def _parts(value: object, shape: Shape, path: str) -> Iterator[tuple[str, object, Shape]]:
    """Yield path, value and shape of everything in a request except structures, whose members have the rules."""
    from botocore.model import ListShape, MapShape, StructureShape

    inner: list[tuple[str, object, Shape]] = []
    if isinstance(shape, StructureShape) and isinstance(value, Mapping):
        inner = [(f"{path}.{name}" if path else name, one, shape.members[name]) for name, one in value.items()]
    elif isinstance(shape, ListShape) and isinstance(value, Sequence):
        inner = [(path, one, shape.member) for one in value]
    elif isinstance(shape, MapShape) and isinstance(value, Mapping):
        inner = [(f"{path}.{name}", one, shape.value) for name, one in value.items()]
    for place, one, member in inner:
        yield from _parts(one, member, place)
    if not isinstance(shape, StructureShape):
        yield path, value, shape


def _broken_rules(path: str, value: object, shape: Shape) -> Iterator[str]:
    """Yield the broken rules that botocore does not check itself: known values, limits and patterns."""
    rules = shape.metadata
    if (known := rules.get("enum")) and value not in known:
        nearest = ", ".join(_nearest(str(value), known))
        yield f"{path} is {value!r}, but this botocore only supports {nearest}"
    size = _size(value)
    if size is not None and size > rules.get("max", size):
        yield f"{path} is {value!r}, beyond the limit of {rules['max']}"
    pattern = rules.get("pattern", "")
    # \p{…} is Java syntax that Python's re does not support.
    if isinstance(value, str) and pattern and r"\p" not in pattern and not re.fullmatch(pattern, value):
        yield f"{path} is {value!r}, but must match {pattern}"


def _size(value: object) -> int | None:
    """Return the size that a limit applies to: the number itself, or the length of a text, list or map."""
    if isinstance(value, int) and not isinstance(value, bool):
        return value
    return len(value) if isinstance(value, str | Sequence | Mapping) else None


def _nearest(value: str, known: Sequence[str]) -> list[str]:
    """Return the known values of the same family (ml.g5.…), or if there are none, those with the closest spelling."""
    family = value.rpartition(".")[0]
    of_family = [name for name in known if name.rpartition(".")[0] == family]
    return of_family or [*(difflib.get_close_matches(value, known) or known[:3]), "…"]
