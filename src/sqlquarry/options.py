"""Checks of constructor arguments against their annotations. All unknown names and wrong types are in one error.

Without these checks ``TrainingConfig(epochs="2")`` fails long after the call, and ``batch_size=4`` fails with a bare
`TypeError`.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import math
import operator
import re
import types
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeVar, Union, get_args, get_origin

from sqlquarry.credentials import redacted
from sqlquarry.errors import ConfigError
from sqlquarry.text import visible

_Class = TypeVar("_Class", bound=type)
# PyYAML follows YAML 1.1, which parses 1e-4 as text because it has no dot.
_YAML_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+")
_SHOWN_CHARACTERS = 80


class _Kind(NamedTuple):
    """The values that an annotation allows.

    Args:
        described: description of one value, used after "must be".
        convert: returns the value in the type of the annotation, or raises `_MismatchError`.
        plural: description of several values, used after "a list of".
    """

    described: str
    convert: Callable[[object], object]
    plural: str = "values"


class _MismatchError(Exception):
    """A value does not match its annotation.

    Args:
        value: the value, or its element that does not match.
        expected: description of the allowed values.
        path: path of the element within the value, such as ``[2]``.
        is_secret: whether messages must not show the value.
    """

    def __init__(self, value: object, expected: str, path: str = "", *, is_secret: bool = False) -> None:
        super().__init__(expected)
        self.value, self.expected, self.path, self.is_secret = value, expected, path, is_secret


def check_options(*, also_called: Mapping[str, str] | None = None) -> Callable[[_Class], _Class]:
    """Return a class decorator that checks the arguments of the constructor before it runs.

    The check accepts an int as a float, a list as a tuple, and the string ``1e-4`` as 0.0001. It rejects NaN, and
    accepts infinity only for durations (``*_s``). For a protocol it only checks that the methods exist. Annotations
    that are imported only for type checkers are not checked. The `ConfigError` lists every wrong option with its value
    and what the value must be.

    Args:
        also_called: another library's name for an option -> the name here, for "did you mean".
    """

    def decorate(cls: _Class) -> _Class:
        original = vars(cls)["__init__"]
        signature = inspect.signature(original)
        kinds = functools.cache(lambda: dict(_kinds(original)))

        @functools.wraps(original)
        def checked(self: object, *values: object, **options: object) -> None:
            problems = [*_unknown(list(signature.parameters), options, also_called or {})]
            try:
                arguments = signature.bind(self, *values, **{k: v for k, v in options.items() if not problems})
            except TypeError as error:
                raise ConfigError(f"{type(self).__name__}: {'; '.join(problems or [str(error)])}") from None
            for name in [name for name in kinds() if name in arguments.arguments]:
                try:
                    arguments.arguments[name] = kinds()[name].convert(arguments.arguments[name])
                except _MismatchError as error:
                    problems.append(_described(name, error))
                    del arguments.arguments[name]
            if problems and dataclasses.is_dataclass(cls):
                # A dataclass only checks values in its constructor, so calling it also finds problems in other options.
                problems += _problems_of(lambda: original(*arguments.args, **arguments.kwargs), type(self).__name__)
            if problems:
                raise ConfigError(f"{type(self).__name__}: {'; '.join(problems)}")
            original(*arguments.args, **arguments.kwargs)

        setattr(cls, "__init__", checked)  # noqa: B010 - type checkers reject a plain assignment to __init__
        return cls

    return decorate


def check_rules(settings: object, rules: Mapping[str, tuple[bool, str]], *more: str) -> None:
    """Raise one error that lists all attributes that break a rule.

    Args:
        settings: the object whose attributes are checked.
        rules: attribute -> whether it satisfies its rule, and the rule in words after "must be".
        more: other problems of the same object.

    Raises:
        ConfigError: an attribute breaks its rule, or there are other problems.
    """
    broken = {name: rule for name, (is_satisfied, rule) in rules.items() if not is_satisfied}
    problems = [f"{name} is {getattr(settings, name)!r}, but must be {rule}" for name, rule in broken.items()]
    if problems or more:
        raise ConfigError(f"{type(settings).__name__}: {'; '.join([*problems, *more])}")


def type_problem(name: str, value: object, hint: object) -> str | None:
    """Say that a value does not match a type hint, as `check_options` says it. Return None if it matches.

    Args:
        name: name of the option, for the message.
        value: its value.
        hint: a resolved annotation.
    """
    try:
        _kind_of(hint).convert(value)
    except _MismatchError as error:
        return _described(name, error)
    return None


def yaml_numbers(value: object) -> object:
    """Replace texts that YAML 1.2 reads as numbers (``1e-4``) by numbers, also in lists and mappings."""
    if isinstance(value, str) and _YAML_NUMBER.fullmatch(value):
        return float(value)
    if isinstance(value, list):
        return [yaml_numbers(one) for one in value]
    return {key: yaml_numbers(one) for key, one in value.items()} if isinstance(value, dict) else value


def known_names(option: str, value: str | Iterable[str], known: Collection[str]) -> list[str]:
    """Return the names in the value of an option as a list. A single name may be a text.

    Raises:
        ConfigError: a name is unknown.
    """
    names = [value] if isinstance(value, str) else list(value)
    for name in names:
        if name not in known:
            near = did_you_mean(name, known) if isinstance(name, str) else ""
            raise ConfigError(f"{option} has {name!r:.80}, but must have names of {', '.join(known)}{near}")
    return names


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return "; did you mean …?" with the known word most similar to `word`, or "" if no known word is similar."""
    lowered = {one.lower(): one for one in known}
    found = difflib.get_close_matches(word.lower(), lowered, n=1)
    return f"; did you mean {lowered[found[0]]!r}?" if found else ""


def _unknown(known: Collection[str], options: Collection[str], also_called: Mapping[str, str]) -> Iterator[str]:
    for name in options:
        if name not in known:
            other = also_called.get(name)
            yield f"{visible(name)[:_SHOWN_CHARACTERS]} is not an option" + (
                f"; did you mean {other!r}?" if other else did_you_mean(name, known)
            )


def _problems_of(construct: Callable[[], None], name: str) -> Iterator[str]:
    try:
        construct()
    except ConfigError as error:
        yield str(error).removeprefix(f"{name}: ")
    except TypeError:  # a required option was removed because its type is wrong
        return


def _described(name: str, error: _MismatchError) -> str:
    plain = isinstance(error.value, str | int | float | list | tuple | None) and not error.is_secret
    kind = type(error.value).__name__
    other = f"the class {error.value.__name__}" if isinstance(error.value, type) else f"of type {kind}"
    shown = redacted(repr(error.value))[:_SHOWN_CHARACTERS] if plain else other
    words = re.findall(r"'([^']*)'", error.expected)
    meant = did_you_mean(error.value, words) if isinstance(error.value, str) and not error.is_secret else ""
    return f"{name}{visible(error.path)} is {visible(shown)}, but must be {error.expected}{meant}"


def _kinds(function: types.FunctionType) -> Iterator[tuple[str, _Kind]]:
    for name, annotation in inspect.get_annotations(function).items():
        single = types.SimpleNamespace(__annotations__={name: annotation})  # so that only one name can fail to resolve
        try:
            hint = typing.get_type_hints(single, function.__globals__)[name]
        except NameError:  # imported for type checkers only
            continue
        yield name, _kind_of(hint, is_duration=name.endswith("_s"))


def _kind_of(hint: object, *, is_duration: bool = False) -> _Kind:  # noqa: PLR0911 - one return per type of annotation
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return _union([_kind_of(arm, is_duration=is_duration) for arm in arguments])
    if origin is Literal:
        return _literal(arguments)
    if hint is int:
        return _checked("a whole number", _whole_number, "whole numbers")
    if hint is float:
        return _checked("a number", functools.partial(_number, infinite=is_duration), "numbers")
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _pairs(arguments)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _mapping(_kind_of(arguments[1]))
    if isinstance(origin, type) and issubclass(origin, tuple | Sequence):
        return _list(_kind_of(arguments[0]), as_tuple=origin is tuple)
    if origin is Callable or hint is Callable:
        return _checked("a function", lambda value: value if callable(value) else None)
    if hint is Any or not isinstance(hint, type):
        return _Kind("anything", lambda value: value)
    return _protocol(hint) if getattr(hint, "_is_protocol", False) else _instance(hint)


def _checked(described: str, accept: Callable[[object], object], plural: str = "values") -> _Kind:
    """Return a kind that converts values with `accept`, which returns None for a value that does not match."""

    def convert(value: object) -> object:
        accepted = accept(value)
        if accepted is None:
            raise _MismatchError(value, described)
        return accepted

    return _Kind(described, convert, plural)


def _instance(kind: type) -> _Kind:
    names = {type(None): ("None", "None"), bool: ("True or False", "True or False"), str: ("a string", "strings")}
    described, plural = names.get(kind, (f"a {kind.__name__}", f"{kind.__name__} objects"))

    def convert(value: object) -> object:
        if not isinstance(value, kind):
            raise _MismatchError(value, described)
        return value

    return _Kind(described, convert, plural)


def _protocol(kind: type) -> _Kind:
    methods = sorted(name for one in kind.__mro__ for name, part in vars(one).items() if inspect.isfunction(part))
    methods = [name for name in methods if not name.startswith("_")]
    described = f"a {kind.__name__} (an object with {', '.join(methods)})"

    def convert(value: object) -> object:
        # A class has the same methods as its instances, but it is not an instance.
        if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in methods):
            raise _MismatchError(value, described)
        return value

    return _Kind(described, convert, f"{kind.__name__} objects (with {', '.join(methods)})")


def _literal(words: Sequence[object]) -> _Kind:
    *others, last = map(repr, words)
    described = f"{', '.join(others)} or {last}" if others else last

    def convert(value: object) -> object:
        if not any(value == word and type(value) is type(word) for word in words):
            raise _MismatchError(value, described)
        return value

    return _Kind(described, convert, described)


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)  # also accepts numpy integers
    except TypeError:
        return None


def _number(value: object, *, infinite: bool) -> float | int | None:
    if isinstance(value, bool) or (isinstance(value, str) and not _YAML_NUMBER.fullmatch(value)):
        return None
    if not isinstance(value, int | Real | str):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    if math.isnan(number) or (math.isinf(number) and not infinite):
        return None
    return value if isinstance(value, int) else number


def _union(arms: Sequence[_Kind]) -> _Kind:
    # "None or a string" reads better than "a string or None".
    described = " or ".join(sorted({arm.described: None for arm in arms}, key=lambda name: name != "None"))

    def convert(value: object) -> object:
        converted, errors = [], []
        for arm in arms:
            try:
                converted.append(arm.convert(value))
            except _MismatchError as error:
                # The traceback would keep the callers' frames alive, and with them their models.
                errors.append(error.with_traceback(None))
        if not converted:
            # An error about one element is more helpful than one about the complete value.
            inner = next((error for error in errors if error.path), None)
            raise inner or _MismatchError(value, described, is_secret=any(error.is_secret for error in errors))
        return next((one for one in converted if one is value), converted[0])

    return _Kind(described, convert, "values")


def _list(element: _Kind, *, as_tuple: bool) -> _Kind:
    described = f"a list of {element.plural}"

    def convert(value: object) -> object:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise _MismatchError(value, described)
        converted = [_convert_part(element, one, f"[{index}]") for index, one in enumerate(value)]
        return tuple(converted) if as_tuple else value if _same(converted, value) else converted

    return _Kind(described, convert)


def _pairs(hints: Sequence[object]) -> _Kind:
    elements = [_kind_of(hint) for hint in hints]
    described = f"{len(elements)} values ({', '.join(element.described for element in elements)})"

    def convert(value: object) -> object:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != len(elements):
            raise _MismatchError(value, described)
        parts = enumerate(zip(elements, value, strict=True))
        return tuple(_convert_part(element, one, f"[{index}]") for index, (element, one) in parts)

    return _Kind(described, convert)


def _mapping(element: _Kind) -> _Kind:
    described = f"a mapping to {element.plural}"

    def convert(value: object) -> object:
        # Values may be secret, and a user may have swapped keys and values. So messages show neither.
        if not isinstance(value, Mapping):
            raise _MismatchError(value, described, is_secret=True)
        converted = {key: _convert_part(element, one, "[…]", is_secret=True) for key, one in value.items()}
        return value if _same(converted.values(), value.values()) else converted

    return _Kind(described, convert)


def _convert_part(kind: _Kind, value: object, path: str, *, is_secret: bool = False) -> object:
    try:
        return kind.convert(value)
    except _MismatchError as error:
        is_secret = is_secret or error.is_secret
        raise _MismatchError(error.value, error.expected, path + error.path, is_secret=is_secret) from None


def _same(converted: Collection[object], given: Collection[object]) -> bool:
    return all(new is old for new, old in zip(converted, given, strict=True))
