"""The package as a whole: the cost of importing it, its public names, its errors and its extras."""

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


def test_importing_is_fast_and_loads_no_heavy_package():
    runs = [python(MEASURE_IMPORT) for _ in range(5)]
    best_s = min(float(seconds) for seconds, _ in runs)
    print(f"import sqlquarry: {best_s * 1000:.1f} ms (best of 5)")

    assert best_s < 0.2
    assert {loaded for _, loaded in runs} == {""}


@pytest.mark.parametrize("names", ["Records, load_records", "PromptFormatter, Record, Generation", "SQLQuarryError"])
def test_names_that_need_no_heavy_package_load_none(names: str):
    heavy = set(HEAVY) - {"jinja2"}

    (loaded,) = python(f"import sys; from sqlquarry import {names}; print(*[n for n in {heavy} if n in sys.modules])")

    assert loaded == ""


def test_exports_are_sorted_and_complete():
    # A name that is only in `_HOMES` can be imported but is not exported. No public attribute shows that.
    assert sqlquarry.__all__ == sorted(sqlquarry._HOMES)
    assert set(sqlquarry.__all__) <= set(dir(sqlquarry))


@pytest.mark.parametrize("name", sqlquarry.__all__)
def test_public_names_can_be_imported_and_are_documented(name: str):
    value = getattr(sqlquarry, name)

    first_line = (inspect.getdoc(value) or "").partition("\n")[0]
    assert first_line.endswith("."), f"{name}: {first_line!r}"


def test_misspelled_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="'Recrod'"):
        sqlquarry.Recrod  # type: ignore[attr-defined] # noqa: B018 - the mistake under test


def error_classes() -> list[type[Exception]]:
    return [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]


def test_the_tree_in_the_docstring_shows_the_real_hierarchy():
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


def test_only_errors_are_found_by_their_name():
    assert all(errors.error_class(error.__name__) is error for error in error_classes())
    assert [errors.error_class(name) for name in ("ValueError", "Any", "error_class", "", None, 3)] == [None] * 6


def test_every_error_is_a_sqlquarry_error_and_documented():
    for error in error_classes():
        assert issubclass(error, SQLQuarryError)
        assert (error.__doc__ or "").partition("\n")[0].endswith(".")


@pytest.mark.parametrize("extra", extras.EXTRA_PACKAGES)
def test_the_error_for_a_missing_extra_contains_the_pip_command(monkeypatch: pytest.MonkeyPatch, extra: str):
    missing = extras.EXTRA_PACKAGES[extra][-1]
    monkeypatch.setattr(extras, "find_spec", lambda name: None if name == missing else object())

    with pytest.raises(MissingExtraError) as caught:
        extras.require(extra, "this feature")

    message = str(caught.value)
    assert [name for name in extras.EXTRA_PACKAGES[extra] if f" {name}" in message.partition("pip")[0]] == [missing]
    assert message.startswith("this feature ")
    assert message.endswith(f" pip install 'sqlquarry[{extra}]'")
    assert caught.value.name == missing
    assert isinstance(caught.value, ImportError)


def test_installed_extras_pass():
    for extra in extras.EXTRA_PACKAGES:
        extras.require(extra, "this feature")
