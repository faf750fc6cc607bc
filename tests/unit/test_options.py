"""Wrong types and unknown names of options are one typed error with the values, in every public class."""

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
from sqlquarry.judging.llm import Rubric
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
        ({"place": Path("x")}, Path("x")),
        ({"wait_s": math.inf}, math.inf),
        ({"kind": None}, None),
    ],
)
def test_values_are_stored_as_the_annotation_has_them(given: dict[str, Any], stored: Any) -> None:
    options = Options(**given)
    value = getattr(options, next(iter(given)))
    assert value == stored
    assert type(value) is type(stored)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"share": "2"}, ["share is '2'", "a number"]),
        ({"share": "high"}, ["share is 'high'"]),
        ({"share": math.nan}, ["share is nan"]),
        ({"share": -math.inf}, ["share is -inf"]),
        ({"share": True}, ["share is True"]),
        ({"share": 10**400}, ["share is 1000"]),
        ({"share": [0.5]}, ["share is [0.5]"]),
        ({"size": 2.5}, ["size is 2.5", "a whole number"]),
        ({"size": 2.0}, ["size is 2.0"]),
        ({"size": "8"}, ["size is '8'"]),
        ({"size": False}, ["size is False"]),
        ({"kind": "A"}, ["kind is 'A'", "did you mean 'a'"]),
        ({"layers": "al"}, ["layers is 'al'", "did you mean 'all'"]),
        ({"layers": ["q", 3]}, ["layers[1] is 3"]),
        ({"switch": 1.5}, ["switch is 1.5"]),
        ({"names": "abc"}, ["names is 'abc'", "a list of texts"]),
        ({"names": None}, ["names is None"]),
        ({"price": [1]}, ["price is [1]", "2 values"]),
        ({"price": [1, "x"]}, ["price[1] is 'x'"]),
        ({"place": 3}, ["place is 3"]),
        ({"wait_s": math.nan}, ["wait_s is nan"]),
        ({"sleep": 3}, ["sleep is 3", "a function"]),
        ({"grader": object()}, ["grader is of type object", "grade"]),
        ({"batch": 4}, ["batch is not an option", "did you mean 'size'"]),
        ({"shar": 4}, ["shar is not an option", "did you mean 'share'"]),
        ({"kind": "c", "size": 0}, ["kind is 'c'", "size is 0"]),
        ({"share": "x", "names": 3}, ["share is 'x'", "names is 3"]),
    ],
)
def test_every_wrong_option_is_named_with_its_value(given: dict[str, Any], said: list[str]) -> None:
    with pytest.raises(ConfigError) as caught:
        Options(**given)
    for part in ("Options: ", *said):
        assert part in str(caught.value)


@pytest.mark.parametrize("given", [{"settings": {"s3cr3t-name": b"s3cr3t"}}, {"settings": "A=s3cr3t"}])
def test_settings_that_may_be_secret_are_not_shown(given: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="settings") as caught:
        Options(**given)
    assert "s3cr3t" not in str(caught.value)


def test_what_a_terminal_obeys_is_not_written_as_it_is() -> None:
    with pytest.raises(ConfigError) as caught:
        Options(**{"\x1b[31m": 1, "kind": "\x1b[31m"})
    assert "\x1b" not in str(caught.value)


def test_missing_and_surplus_arguments_are_typed_errors_as_well() -> None:
    with pytest.raises(ConfigError, match="QLoRAFSDPTrainer"):
        sqlquarry.QLoRAFSDPTrainer()  # type: ignore[call-arg] - wrong on purpose
    with pytest.raises(ConfigError, match="positional"):
        TrainingConfig(2.0)  # type: ignore[misc] - wrong on purpose


def test_the_signature_stays_that_of_the_class() -> None:
    assert list(inspect.signature(Options).parameters) == [field.name for field in dataclasses.fields(Options)]
    assert dataclasses.replace(Options(size=2), share=0.1).size == 2


# Every public class that is made of options; what the others hold was checked by those that make them.
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
    Rubric,
    Thresholds,
    Compute,
    Networking,
    StoppingCondition,
]


class Nothing:
    """Of no type that any option takes."""


def _wrong(cls: type) -> list[str]:
    """The options of a class that take no object of another kind."""
    parameters = inspect.signature(cls).parameters.values()
    unchecked = ("Any", "object", "boto3.Session | None")  # boto3 is imported for type checkers alone
    return [one.name for one in parameters if one.annotation not in unchecked]


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_every_option_of_every_public_class_is_checked(cls: type) -> None:
    for name in _wrong(cls):
        needed = {
            one.name: Nothing()
            for one in inspect.signature(cls).parameters.values()
            if one.default is inspect.Parameter.empty
        }
        with pytest.raises(ConfigError, match=rf"{name} is of type Nothing, but must be"):
            cls(**{**needed, name: Nothing()})


@pytest.mark.parametrize("cls", PUBLIC, ids=lambda cls: cls.__name__)
def test_a_misspelt_option_of_every_public_class_is_named(cls: type) -> None:
    last = list(inspect.signature(cls).parameters)[-1]
    with pytest.raises(ConfigError, match=f"{last}z is not an option; did you mean '{last}'"):
        cls(**{f"{last}z": 1})


@pytest.mark.parametrize(
    ("word", "ours"),
    [
        ("batch_size", "records_per_step"),
        ("lora_rank", "lora_r"),
        ("alpha", "lora_alpha"),
        ("epochs", "num_train_epochs"),
        ("max_seq_length", "max_length"),
        ("learning_rat", "learning_rate"),
    ],
)
def test_the_words_of_other_trainers_lead_to_ours(word: str, ours: str) -> None:
    with pytest.raises(ConfigError, match=f"{word} is not an option; did you mean '{ours}'"):
        TrainingConfig(**{word: 4})


def test_every_suggested_option_exists() -> None:
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
def test_a_configuration_is_either_refused_or_of_the_types_it_promises(options: dict[str, Any]) -> None:
    try:
        config = TrainingConfig(**options)
    except ConfigError as error:
        said = str(error)
    else:
        said = ""
    if said:
        assert any(name in said for name in options)
        return
    hints = get_type_hints(TrainingConfig)
    for name in options:
        value = getattr(config, name)
        arms = get_args(hints[name]) or (hints[name],)
        plain = [arm for arm in arms if isinstance(arm, type)]
        assert type(value) in (*plain, str, tuple) or (float in plain and type(value) is int), name
        assert not (isinstance(value, float) and not math.isfinite(value) and not name.endswith("_s")), name
