"""Check the options of a class by their annotations: unknown names and wrong types are one error, found at once.

Without this check ``TrainingConfig(epochs="2")`` fails long after it was written, and ``batch_size=4`` with a bare
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
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from numbers import Real
from typing import Any, Literal, NamedTuple, SupportsIndex, TypeVar, Union, get_args, get_origin

from sqlquarry.credentials import redacted
from sqlquarry.errors import ConfigError
from sqlquarry.text import visible

_Class = TypeVar("_Class", bound=type)
# YAML 1.1, which PyYAML reads, takes 1e-4 for text, because it has no dot.
_YAML_NUMBER = re.compile(r"[+-]?[0-9]+(\.[0-9]*)?[eE][+-]?[0-9]+")
_SHOWN_CHARACTERS = 80


class _Kind(NamedTuple):
    """What an annotation allows.

    Args:
        named: in words, after "must be".
        read: returns the value as the annotation has it, or raises `_MismatchError`.
        plural: in words, after "a list of".
    """

    named: str
    read: Callable[[object], object]
    plural: str = "values"


class _MismatchError(Exception):
    """A value is of another kind.

    Args:
        value: the value, or the element of it that is wrong.
        named: what it must be.
        place: of the element within the value, such as ``[2]``.
        is_secret: whether the value must not be shown.
    """

    def __init__(self, value: object, named: str, place: str = "", *, is_secret: bool = False) -> None:
        super().__init__(named)
        self.value, self.named, self.place, self.is_secret = value, named, place, is_secret


def check_options(*, also_called: Mapping[str, str] | None = None) -> Callable[[_Class], _Class]:
    """Return a class decorator that checks the arguments of the constructor before it runs.

    An int is taken for a float, a list for a tuple, and the text ``1e-4`` for 0.0001. NaN is not a number here, and
    infinity is one only where the option is a duration (``*_s``). Of a protocol only the methods are checked, and an
    annotation that exists for type checkers alone is not. The error is a `ConfigError` that names every wrong option,
    its value and what it must be.

    Args:
        also_called: another library's word -> the name of the option here, for "did you mean".
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
                    arguments.arguments[name] = kinds()[name].read(arguments.arguments[name])
                except _MismatchError as error:
                    problems.append(_described(name, error))
                    del arguments.arguments[name]
            if problems and dataclasses.is_dataclass(cls):
                # Its constructor does nothing but check values, so it can say what is wrong with the others.
                problems += _problems_of(lambda: original(*arguments.args, **arguments.kwargs), type(self).__name__)
            if problems:
                raise ConfigError(f"{type(self).__name__}: {'; '.join(problems)}")
            original(*arguments.args, **arguments.kwargs)

        setattr(cls, "__init__", checked)  # noqa: B010 - type checkers know no class whose constructor changes
        return cls

    return decorate


def check_rules(settings: object, rules: Mapping[str, tuple[bool, str]], *more: str) -> None:
    """Refuse settings that break a rule, naming all of them at once.

    Args:
        settings: the object whose attributes are checked.
        rules: attribute -> whether it keeps its rule, and the rule in words after "must be".
        more: other problems of the same object.

    Raises:
        ConfigError: an attribute breaks its rule, or there are other problems.
    """
    broken = {name: rule for name, (is_kept, rule) in rules.items() if not is_kept}
    problems = [f"{name} is {getattr(settings, name)!r}, but must be {rule}" for name, rule in broken.items()]
    if problems or more:
        raise ConfigError(f"{type(settings).__name__}: {'; '.join([*problems, *more])}")


def did_you_mean(word: str, known: Collection[str]) -> str:
    """Return "; did you mean …?" with the known word that is most like this one; "" if none is like it."""
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
    except TypeError:  # an option that must be given is of a wrong type
        return


def _described(name: str, error: _MismatchError) -> str:
    plain = isinstance(error.value, str | int | float | list | tuple | None) and not error.is_secret
    kind = type(error.value).__name__
    other = f"the class {error.value.__name__}" if isinstance(error.value, type) else f"of type {kind}"
    shown = redacted(repr(error.value))[:_SHOWN_CHARACTERS] if plain else other
    words = re.findall(r"'([^']*)'", error.named)
    meant = did_you_mean(error.value, words) if isinstance(error.value, str) and not error.is_secret else ""
    return f"{name}{visible(error.place)} is {visible(shown)}, but must be {error.named}{meant}"


def _kinds(function: types.FunctionType) -> Iterator[tuple[str, _Kind]]:
    for name, annotation in inspect.get_annotations(function).items():
        alone = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hint = typing.get_type_hints(alone, function.__globals__)[name]
        except NameError:  # imported for type checkers only
            continue
        yield name, _kind_of(hint, is_duration=name.endswith("_s"))


def _kind_of(hint: object, *, is_duration: bool = False) -> _Kind:  # noqa: PLR0911 - by kind of annotation
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


def _checked(named: str, read: Callable[[object], object], plural: str = "values") -> _Kind:
    """Return the kind of what `read` returns; None means that the value is of another kind."""

    def convert(value: object) -> object:
        found = read(value)
        if found is None:
            raise _MismatchError(value, named)
        return found

    return _Kind(named, convert, plural)


def _instance(kind: type) -> _Kind:
    names = {type(None): ("None", "None"), bool: ("True or False", "True or False"), str: ("text", "texts")}
    named, plural = names.get(kind, (f"a {kind.__name__}", f"{kind.__name__} objects"))

    def read(value: object) -> object:
        if not isinstance(value, kind):
            raise _MismatchError(value, named)
        return value

    return _Kind(named, read, plural)


def _protocol(kind: type) -> _Kind:
    methods = sorted(name for one in kind.__mro__ for name, part in vars(one).items() if inspect.isfunction(part))
    methods = [name for name in methods if not name.startswith("_")]
    named = f"a {kind.__name__} (an object with {', '.join(methods)})"

    def read(value: object) -> object:
        # A class has the methods of its objects, but cannot be used for one.
        if isinstance(value, type) or not all(callable(getattr(value, name, None)) for name in methods):
            raise _MismatchError(value, named)
        return value

    return _Kind(named, read, f"{kind.__name__} objects (with {', '.join(methods)})")


def _literal(words: Sequence[object]) -> _Kind:
    *others, last = map(repr, words)
    named = f"{', '.join(others)} or {last}" if others else last

    def read(value: object) -> object:
        if not any(value == word and type(value) is type(word) for word in words):
            raise _MismatchError(value, named)
        return value

    return _Kind(named, read, f"{named} each")


def _whole_number(value: object) -> int | None:
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        return operator.index(value)  # numbers of numpy are numbers as well
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
    # "None or text" reads better than "text or None".
    named = " or ".join(sorted({arm.named: None for arm in arms}, key=lambda name: name != "None"))

    def read(value: object) -> object:
        taken, errors = [], []
        for arm in arms:
            try:
                taken.append(arm.read(value))
            except _MismatchError as error:
                errors.append(error.with_traceback(None))  # which would keep the callers' frames, and models, alive
        if not taken:
            # What is wrong with an element says more than that the whole is wrong.
            inner = next((error for error in errors if error.place), None)
            raise inner or _MismatchError(value, named, is_secret=any(error.is_secret for error in errors))
        return next((one for one in taken if one is value), taken[0])

    return _Kind(named, read, "values")


def _list(element: _Kind, *, as_tuple: bool) -> _Kind:
    named = f"a list of {element.plural}"

    def read(value: object) -> object:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes):
            raise _MismatchError(value, named)
        found = [_read_part(element, one, f"[{place}]") for place, one in enumerate(value)]
        return tuple(found) if as_tuple else value if _same(found, value) else found

    return _Kind(named, read)


def _pairs(hints: Sequence[object]) -> _Kind:
    elements = [_kind_of(hint) for hint in hints]
    named = f"{len(elements)} values ({', '.join(element.named for element in elements)})"

    def read(value: object) -> object:
        if not isinstance(value, Sequence) or isinstance(value, str | bytes) or len(value) != len(elements):
            raise _MismatchError(value, named)
        parts = enumerate(zip(elements, value, strict=True))
        return tuple(_read_part(element, one, f"[{place}]") for place, (element, one) in parts)

    return _Kind(named, read)


def _mapping(element: _Kind) -> _Kind:
    named = f"a mapping to {element.plural}"

    def read(value: object) -> object:
        # Neither keys nor values are shown: a mapping may hold settings that are secret, or exchanged with their names.
        if not isinstance(value, Mapping):
            raise _MismatchError(value, named, is_secret=True)
        found = {key: _read_part(element, one, "[…]", is_secret=True) for key, one in value.items()}
        return value if _same(found.values(), value.values()) else found

    return _Kind(named, read)


def _read_part(kind: _Kind, value: object, place: str, *, is_secret: bool = False) -> object:
    try:
        return kind.read(value)
    except _MismatchError as error:
        is_secret = is_secret or error.is_secret
        raise _MismatchError(error.value, error.named, place + error.place, is_secret=is_secret) from None


def _same(found: Collection[object], given: Collection[object]) -> bool:
    return all(new is old for new, old in zip(found, given, strict=True))
