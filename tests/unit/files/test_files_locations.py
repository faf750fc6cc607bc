"""Test the parsing of locations: S3 URIs in every spelling, and directories."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sqlquarry.errors import ConfigError
from sqlquarry.files.locations import S3Location, is_hub_id, is_s3, local_path, located

_PART = st.text("abcXYZ019-_.", min_size=1, max_size=8).filter(lambda part: part.strip(".") == part)


@given(bucket=_PART, parts=st.lists(_PART, max_size=4), slashes=st.integers(1, 3), scheme=st.sampled_from(["s3", "S3"]))
def test_every_spelling_is_one_location(bucket: str, parts: list[str], slashes: int, scheme: str) -> None:
    prefix = "/".join(parts)
    expected = S3Location(bucket, f"{prefix}/" if prefix else "")
    uri = "/".join([f"s3://{bucket}", *parts])
    assert str(expected) == uri
    for spelling in (uri, f"{uri}/", Path(uri), f"{scheme}:{'/' * slashes}{uri.removeprefix('s3://')}", expected):
        assert located(spelling) == expected
    assert S3Location.parse(str(expected)) == expected
    assert expected.uri_of("config.json") == f"{uri}/config.json"


@given(parts=st.lists(_PART, min_size=1, max_size=3), root=st.sampled_from(["", "/", "./", "~/", "/s3:/"]))
def test_everything_else_is_a_path(parts: list[str], root: str) -> None:
    text = root + "/".join(parts)
    assert not is_s3(text)
    assert located(text) == local_path(text, "x") == Path(text).expanduser()


@pytest.mark.parametrize(
    "bad",
    [
        "~nobody-of-this-name/a",
        *(None, 3, 1.5, b"s3://bucket", ["a"], object(), "s3://", "s3:///", "s3:/", Path("s3://")),
        *("https://bucket.s3.amazonaws.com/prefix", Path("https://bucket.s3.amazonaws.com/prefix"), "gs://bucket/x"),
        *("hf://owner/model", "file:///tmp/x", "arn:aws:s3:::bucket/prefix"),
    ],
)
def test_invalid_locations_are_refused(bad: Any) -> None:
    with pytest.raises(ConfigError, match=re.escape(repr(str(bad) if isinstance(bad, Path) else bad)[:80])):
        located(bad)


def test_a_location_on_s3_is_not_a_directory() -> None:
    with pytest.raises(ConfigError, match=r"^output_dir .* s3://bucket/a\b"):
        local_path(Path("s3://bucket/a"), "output_dir")
    with pytest.raises(ConfigError, match=r"^checkpoint_dir .* s3://bucket "):
        S3Location.parse("s3://bucket").require_prefix("checkpoint_dir")
    location = S3Location.parse("s3://bucket/a")
    assert location.require_prefix("checkpoint_dir") == location
    with pytest.raises(ConfigError, match="'bucket/prefix'"):
        S3Location.parse("bucket/prefix")


def test_a_hub_id_has_two_names_and_is_not_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert is_hub_id("meta-llama/Llama-3.2-1B")
    for other in ("Llama-3.2-1B", "./base/model", "../model", "/base/model", "~/model", "a/b/c", "s3://bucket/model"):
        assert not is_hub_id(other)
    (tmp_path / "meta-llama" / "Llama-3.2-1B").mkdir(parents=True)
    assert not is_hub_id("meta-llama/Llama-3.2-1B")
