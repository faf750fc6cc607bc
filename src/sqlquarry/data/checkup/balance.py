"""Find classes of queries that dominate a set or are missing from it, and sets too small for a training run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from sqlquarry.data.checkup.checked import Checked, Plan
from sqlquarry.data.checkup.findings import Check, Finding, Kind
from sqlquarry.data.checkup.statistics import classes_and_shapes, has_shape
from sqlquarry.data.normal_form import schema_form

# Our own choices.
_DOMINANT = 0.9  # share of the queries
_HALF = 0.5  # share of the records
_USEFUL = 20  # records of a class
_ENOUGH_STEPS = 50  # Below it, warm-up and decay of the learning rate take much of the run.

KINDS = (
    Kind(
        "one-class",
        "note",
        "Almost all queries have the same hardness",
        "A model learns what it sees. Add records of the other classes, and give a test the classes of your users.",
    ),
    Kind(
        "rare-class",
        "note",
        "A class of queries is rare",
        "Add records of this class if your users ask such questions. Otherwise ignore this note.",
    ),
    Kind(
        "dominant-schema",
        "note",
        "More than half of the records have one schema or database",
        "Add records of the other schemas if the model should be equally good on them.",
    ),
    Kind(
        "few-steps",
        "warning",
        "A training run would have few optimizer steps",
        "Lower records_per_step, raise num_train_epochs, or add records.",
        needs="plan",
    ),
)


def rare_classes(checked: Checked) -> Iterator[Finding]:
    """Find a hardness of more than 90 % of the queries, and classes of fewer than 20 queries.

    The classes are the levels of hardness and what queries contain, such as joins. Sets of fewer than 20 queries are
    not examined.
    """
    features = checked.features
    classes, shapes = classes_and_shapes(features)
    total = sum(classes.values())
    if total < _USEFUL:
        return
    del classes["unreadable"]
    for name, count in classes.items():
        if count > _DOMINANT * total:
            yield Finding("one-class", (), f"{count:,} of {total:,} queries are {name}")
    for verb, counts in (("is", classes), ("has", shapes)):
        if missing := [name for name, count in counts.items() if count == 0]:
            yield Finding("rare-class", (), f"no query {verb} {' or '.join(missing)}")
    for name, count in classes.items():
        if 0 < count < _USEFUL:
            places = tuple(place for place, found in enumerate(features) if found and found["hardness"] == name)
            yield Finding("rare-class", places, f"{count} of {total:,} queries: {name}")
    for name, count in shapes.items():
        if 0 < count < _USEFUL:
            places = tuple(place for place, found in enumerate(features) if found and has_shape(found, name))
            yield Finding("rare-class", places, f"{count} of {total:,} queries: {name}")


def dominant_schemas(checked: Checked) -> Iterator[Finding]:
    """Find a schema, or failing that a database, of more than half of the records. The only one does not count."""
    forms = {text: schema_form(text) for text in {record.schema for record in checked.records}}
    schemas = [forms[record.schema] for record in checked.records]
    if not (detail := _dominant(schemas, "schema")):
        databases = [record.database for record in checked.records]
        detail = _dominant([name for name in databases if name is not None], "database")
    if detail:
        yield Finding("dominant-schema", (), detail)


def few_steps(checked: Checked) -> Iterator[Finding]:
    """Find a run of fewer than 50 optimizer steps, and name records per step and epochs that are enough."""
    plan = checked.plan
    if plan is not None and plan.steps < _ENOUGH_STEPS:
        steps = f"{plan.steps} step{'s' if plan.steps != 1 else ''}"
        detail = f"the optimizer takes only {steps}. Set {_more_steps(plan)} for at least {_ENOUGH_STEPS} steps."
        yield Finding("few-steps", (), detail)


CHECKS: tuple[Check, ...] = (rare_classes, dominant_schemas, few_steps)


def _dominant(names: Sequence[str], what: str) -> str:
    """Return a sentence about the name that occurs most, or "" if it does not dominate."""
    counts: dict[str, int] = {}
    for name in names:
        counts[name] = counts.get(name, 0) + 1
    if len(counts) < 2:
        return ""
    name, count = max(counts.items(), key=lambda item: item[1])
    shown = f" {name!r}" if what == "database" else ""
    return f"{count:,} of {len(names):,} records have one {what}{shown}" if count > _HALF * len(names) else ""


def _more_steps(plan: Plan) -> str:
    """Return the changes that give enough steps: fewer records per step, and also more epochs if needed.

    Epochs are rounded up to whole steps, so the steps of a run are at least epochs · rows / rows per step.
    """
    rows_per_step = max(1, math.floor(plan.epochs * plan.rows / _ENOUGH_STEPS))
    changes = []
    if rows_per_step < plan.rows_per_step:
        changes.append(f"records_per_step={max(1, math.floor(rows_per_step * plan.records / plan.rows))}")
    if plan.epochs * plan.rows < _ENOUGH_STEPS:
        changes.append(f"num_train_epochs={math.ceil(_ENOUGH_STEPS / plan.rows)}")
    return " and ".join(changes)
