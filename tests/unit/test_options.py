"""In every public class, wrong types and unknown names of options are one typed error that contains the values."""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, get_args, get_type_hints

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

import sqlquarry
from sqlquarry.emulator import LocalAWS
from sqlquarry.errors import ConfigError
from sqlquarry.judging.llm import PromptRubric, Rubric
from sqlquarry.merging import Thresholds
from sqlquarry.options import check_options
from sqlquarry.sagemaker import Compute, Networking, StoppingCondition
from sqlquarry.training import TrainingConfig


class Grader(Protocol):
    def grade(self, text: str) -> bool: ...


@check_options(also_called={"batch": "size"})
@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    share: float = 0.5
    size: int = 1
    kind: Literal["a", "b"] | None = "a"
    layers: Literal["all"] | tuple[str, ...] = "all"
    switch: bool | int | None = None
    names: Sequence[str] = ()
    price: tuple[float, float] | None = None
    settings: Mapping[str, str] = dataclasses.field(default_factory=dict)
    rates: Sequence[float] = ()
    limits: Mapping[str, float] = dataclasses.field(default_factory=dict)
    place: str | Path = "."
    wait_s: float = 1.0
    sleep: Callable[[float], None] = print
    grader: Grader | None = None

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ConfigError(f"Options: size is {self.size}, but must be at least 1")


@pytest.mark.parametrize(
    ("given", "stored"),
    [
        ({"share": 1}, 1),
        ({"share": "1e-4"}, 1e-4),
        ({"share": np.float32(0.25)}, 0.25),
        ({"size": np.int64(3)}, 3),
        ({"layers": ["q", "v"]}, ("q", "v")),
        ({"layers": "all"}, "all"),
        ({"switch": True}, True),
        ({"switch": 2}, 2),
        ({"names": ["a"]}, ["a"]),
        ({"price": [1, 2.5]}, (1, 2.5)),
        ({"settings": {"a": "b"}}, {"a": "b"}),
        ({"rates": [1, "1e-4"]}, [1, 1e-4]),
        ({"limits": {"a": "1e-4"}}, {"a": 1e-4}),
        ({"place": Path("x")}, Path("x")),
        ({"wait_s": math.inf}, math.inf),
        ({"kind": None}, None),
    ],
)
def test_values_are_stored_in_the_type_of_the_annotation(given: dict[str, Any], stored: Any) -> None:
    options = Options(**given)
    value = getattr(options, next(iter(given)))
    assert value == stored
    assert type(value) is type(stored)


@pytest.mark.parametrize(
    ("given", "values"),
    [
        ({"share": "2"}, ["share is '2'"]),
        ({"share": "high"}, ["share is 'high'"]),
        ({"share": math.nan}, ["share is nan"]),
        ({"share": -math.inf}, ["share is -inf"]),
        ({"share": True}, ["share is True"]),
        ({"share": 10**400}, ["share is 1000"]),
        ({"share": [0.5]}, ["share is [0.5]"]),
        ({"size": 2.5}, ["size is 2.5"]),
        ({"size": 2.0}, ["size is 2.0"]),
        ({"size": "8"}, ["size is '8'"]),
        ({"size": False}, ["size is False"]),
        ({"kind": "A"}, ["kind is 'A'", "None or 'a' or 'b'", "'a'?"]),
        ({"layers": "al"}, ["layers is 'al'", "'all'?"]),
        ({"layers": ["q", 3]}, ["layers[1] is 3"]),
        ({"switch": 1.5}, ["switch is 1.5"]),
        ({"names": "abc"}, ["names is 'abc'"]),
        ({"names": None}, ["names is None"]),
        ({"price": [1]}, ["price is [1]", "2"]),
        ({"price": [1, "x"]}, ["price[1] is 'x'"]),
        ({"place": 3}, ["place is 3"]),
        ({"wait_s": math.nan}, ["wait_s is nan"]),
        ({"sleep": 3}, ["sleep is 3"]),
        ({"grader": object()}, ["grader", "object", "Grader", "grade)"]),
        ({"batch": 4}, ["batch ", "'size'?"]),
        ({"shar": 4}, ["shar ", "'share'?"]),
        ({"kind": "c", "size": 0}, ["kind is 'c'", "size is 0"]),
        ({"share": "x", "names": 3}, ["share is 'x'", "names is 3"]),
    ],
)
def test_the_error_contains_every_wrong_option_with_its_value(given: dict[str, Any], values: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Options(**given)
    for part in ("Options: ", *values):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"share": "x"}, "a number"),
        ({"size": "x"}, "a whole number"),
        ({"names": 3}, "a list of strings"),
        ({"price": 3}, "None or 2 values (a number, a number)"),
        ({"settings": 3}, "a mapping to strings"),
        ({"place": 3}, "a string or a Path"),
        ({"sleep": 3}, "a function"),
        ({"grader": 3}, "None or a Grader (an object with grade)"),
    ],
)
def test_the_error_describes_the_values_that_the_annotation_allows(given: dict[str, Any], expected: str) -> None:
    """The description is generated from the annotation, so it is compared literally."""
    with pytest.raises(ConfigError) as caught:
        Options(**given)
    assert str(caught.value).endswith(f" {expected}")


@pytest.mark.parametrize("option", ["names", "settings"])
def test_a_list_or_mapping_of_the_right_type_is_not_copied(option: str) -> None:
    given: Any = {"names": ["a"], "settings": {"a": "b"}}[option]
    assert getattr(Options(**{option: given}), option) is given


@pytest.mark.parametrize(
    "given",
    [{"settings": {"s3cr3t-name": b"s3cr3t"}}, {"settings": "A=s3cr3t"}, {"limits": {"s3cr3t-name": "s3cr3t"}}],
)
def test_settings_that_may_be_secret_are_not_shown(given: dict[str, Any]) -> None:
    (option,) = given
    with pytest.raises(ConfigError, match=option) as caught:
        Options(**given)
    assert "s3cr3t" not in str(caught.value)


def test_control_characters_are_escaped() -> None:
    with pytest.raises(ConfigError) as caught:
        Options(**{"\x1b[31m": 1, "kind": "\x1b[31m"})
    assert "\x1b" not in str(caught.value)


def test_missing_and_surplus_arguments_are_typed_errors() -> None:
    with pytest.raises(ConfigError, match="QLoRAFSDPTrainer"):
        sqlquarry.QLoRAFSDPTrainer()  # type: ignore[call-arg] - wrong on purpose
    with pytest.raises(ConfigError, match="TrainingConfig: too many positional arguments"):  # Python's own words
        TrainingConfig(2.0)  # type: ignore[misc] - wrong on purpose


def test_the_class_keeps_its_signature() -> None:
    assert list(inspect.signature(Options).parameters) == [field.name for field in dataclasses.fields(Options)]
    assert dataclasses.replace(Options(size=2), share=0.1).size == 2


# All public classes that users construct from options. Other classes get values that have been checked before.
PUBLIC = [
    sqlquarry.AdapterMerger,
    sqlquarry.BatchFoundationModel,
    sqlquarry.BedrockImporter,
    sqlquarry.ComparisonOptions,
    sqlquarry.EquivalenceGrader,
    sqlquarry.ExactGrader,
    sqlquarry.ExecutionGrader,
    sqlquarry.ExecutionLimits,
    sqlquarry.FoundationModel,
    sqlquarry.ImportedModel,
    sqlquarry.LLMGrader,
    sqlquarry.LocalModel,
    sqlquarry.PriceTable,
    sqlquarry.PromptFormatter,
    sqlquarry.QLoRAFSDPTrainer,
    sqlquarry.RetryPolicy,
    sqlquarry.SQLJudge,
    sqlquarry.SageMakerLauncher,
    sqlquarry.SynthesizedDatabases,
    sqlquarry.TrainingConfig,
    LocalAWS,
    PromptRubric,
    Rubric,
    Thresholds,
    Compute,
    Networking,
    StoppingCondition,
]


class Nothing:
    """A class that no option accepts."""


def _checked_options(cls: type) -> list[str]:
    """Return the options of a class that have a type which can be checked."""
    parameters = inspect.signature(cls).parameters.values()
    unchecked = ("Any", "object", "boto3.Session | None")  # boto3 is imported only for type checkers
    return [one.name for one in parameters if one.annotation not in unchecked]


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_every_option_of_every_public_class_is_checked(cls: type) -> None:
    for name in _checked_options(cls):
        required = {
            one.name: Nothing()
            for one in inspect.signature(cls).parameters.values()
            if one.default is inspect.Parameter.empty
        }
        with pytest.raises(ConfigError, match=rf"\b{name} [^;]*\bNothing\b"):
            cls(**{**required, name: Nothing()})


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_a_misspelt_option_of_every_public_class_is_named(cls: type) -> None:
    last = list(inspect.signature(cls).parameters)[-1]
    with pytest.raises(ConfigError, match=rf"\b{last}z\b.*'{last}'\?"):
        cls(**{f"{last}z": 1})


@pytest.mark.parametrize(
    ("other", "own"),
    [
        ("batch_size", "records_per_step"),
        ("lora_rank", "lora_r"),
        ("alpha", "lora_alpha"),
        ("epochs", "num_train_epochs"),
        ("max_seq_length", "max_length"),
        ("learning_rat", "learning_rate"),
    ],
)
def test_option_names_of_other_trainers_are_translated(other: str, own: str) -> None:
    with pytest.raises(ConfigError, match=rf"\b{other}\b.*'{own}'\?"):
        TrainingConfig(**{other: 4})


def test_every_suggested_option_exists() -> None:
    # A suggestion shows only in the error for its own word, so there is no public list of them.
    from sqlquarry.training.config import _ALSO_CALLED

    assert set(_ALSO_CALLED.values()) <= {field.name for field in dataclasses.fields(TrainingConfig)}


@pytest.mark.parametrize(
    ("written", "read"),
    [("1e-4", 1e-4), ("2E-5", 2e-5), ("1.e-4", 1e-4), ("0.0001", 1e-4), ("5e-04", 5e-4)],
)
def test_rates_as_people_write_them_in_yaml(written: str, read: float) -> None:
    assert TrainingConfig(**yaml.safe_load(f"learning_rate: {written}")).learning_rate == pytest.approx(read)


VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.sampled_from(["nf4", "full", "auto", "cpu", "all-linear", "1e-4"]),
    st.lists(st.one_of(st.text(max_size=4), st.integers()), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
NAMES = [field.name for field in dataclasses.fields(TrainingConfig)]


@given(st.dictionaries(st.sampled_from(NAMES), VALUES, max_size=4))
def test_a_configuration_is_refused_or_has_the_annotated_types(options: dict[str, Any]) -> None:
    refusal = None
    try:
        config = TrainingConfig(**options)
    except ConfigError as error:
        refusal = str(error)
    if refusal is not None:
        assert any(name in refusal for name in options)
        return
    hints = get_type_hints(TrainingConfig)
    for name in options:
        value = getattr(config, name)
        arms = get_args(hints[name]) or (hints[name],)
        plain = [arm for arm in arms if isinstance(arm, type)]
        assert type(value) in (*plain, str, tuple) or (float in plain and type(value) is int), name
        assert not (isinstance(value, float) and not math.isfinite(value) and not name.endswith("_s")), name
