"""The package as a whole: what importing it costs, what it exports, what its errors promise."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest

import sqlquarry
from sqlquarry import errors, extras
from sqlquarry.errors import MissingExtraError, SQLQuarryError

HEAVY = ("torch", "boto3", "botocore", "transformers", "numpy", "pandas", "scipy", "sqlglot", "jinja2", "datasets")
MEASURE_IMPORT = f"""
import sys, time
start = time.perf_counter()
import sqlquarry
print(time.perf_counter() - start)
print(*[name for name in {HEAVY} if name in sys.modules])
"""


def python(code: str) -> list[str]:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout.splitlines()


def test_importing_is_cheap():
    runs = [python(MEASURE_IMPORT) for _ in range(5)]
    best_s = min(float(seconds) for seconds, _ in runs)
    print(f"import sqlquarry: {best_s * 1000:.1f} ms (best of 5)")

    assert best_s < 0.2
    assert {loaded for _, loaded in runs} == {""}


@pytest.mark.parametrize("names", ["Records, load_records", "PromptFormatter, Record, Generation", "SQLQuarryError"])
def test_light_names_stay_light(names: str):
    heavy = set(HEAVY) - {"jinja2"}

    (loaded,) = python(f"import sys; from sqlquarry import {names}; print(*[n for n in {heavy} if n in sys.modules])")

    assert loaded == ""


def test_exports_are_sorted_and_have_a_home():
    assert sqlquarry.__all__ == sorted(sqlquarry._HOMES)
    assert set(sqlquarry.__all__) <= set(dir(sqlquarry))


@pytest.mark.parametrize("name", sqlquarry.__all__)
def test_public_names_resolve_and_say_what_they_are(name: str):
    value = getattr(sqlquarry, name)

    first_line = (inspect.getdoc(value) or "").partition("\n")[0]
    assert first_line.endswith("."), f"{name}: {first_line!r}"


def test_misspelt_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="no attribute 'Recrod'"):
        sqlquarry.Recrod  # type: ignore[attr-defined] # noqa: B018 - the mistake under test


def error_classes() -> list[type[Exception]]:
    return [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_the_error_tree_is_drawn_as_it_is():
    drawn: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        name = next((word for word in line.split() if word.endswith("Error")), None)
        if name and line.strip().startswith(("SQLQuarryError", "├", "└", "│")):
            drawn.append((line.index(name), name))
    parents = {
        name: next((parent for indent, parent in reversed(drawn[:place]) if indent < depth), None)
        for place, (depth, name) in enumerate(drawn)
    }

    assert set(parents) == {error.__name__ for error in error_classes()} == set(errors.__all__)
    assert sorted(errors.__all__) == errors.__all__
    assert parents.pop("SQLQuarryError") is None
    for name, parent in parents.items():
        assert getattr(errors, name).__bases__[0].__name__ == parent


def test_an_error_is_found_by_its_name_and_nothing_else_is():
    assert all(errors.error_class(error.__name__) is error for error in error_classes())
    assert [errors.error_class(name) for name in ("ValueError", "Any", "error_class", "", None, 3)] == [None] * 6


def test_every_error_is_ours_and_documented():
    for error in error_classes():
        assert issubclass(error, SQLQuarryError)
        assert (error.__doc__ or "").partition("\n")[0].endswith(".")


@pytest.mark.parametrize("extra", extras._PACKAGES)
def test_a_missing_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch, extra: str):
    missing = extras._PACKAGES[extra][-1]
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == missing else object())

    with pytest.raises(MissingExtraError) as caught:
        extras.require(extra, "this feature")

    assert str(caught.value) == (
        f"this feature needs {missing}, which is not installed. Run: pip install 'sqlquarry[{extra}]'"
    )
    assert caught.value.name == missing
    assert isinstance(caught.value, ImportError)


def test_installed_extras_pass():
    for extra in extras._PACKAGES:
        extras.require(extra, "this feature")
