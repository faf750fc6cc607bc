"""What all HTML pages share: a template, colors, and a script that is the only one allowed to run."""

import base64
import gzip
import hashlib
import json
import re
from pathlib import Path

import pytest

from sqlquarry.pages import packed, page, render_page

EVIL = "<script>alert(1)</script>"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "page.html.j2").write_text(
        '{% extends "base.html.j2" %}{% block content %}<p>{{ word | twice }}</p>{% endblock %}'
    )
    (tmp_path / "page.css").write_text("p { color: red; }")
    (tmp_path / "page.js").write_text("const mine = 7;")
    return tmp_path


def test_a_page_has_its_own_parts_and_the_shared_ones(folder: Path) -> None:
    text = render_page(
        folder, {"word": "a\u202e<"}, title=EVIL, data=["H4sI"], filters={"twice": lambda word: word * 2}
    ).decode()
    assert "<p>a\\u{202e}&lt;a\\u{202e}&lt;</p>" in text, "texts are escaped, and invisible characters are shown"
    assert text.count("<script") == 1
    assert "prefers-color-scheme: dark" in text
    assert "p { color: red; }" in text
    assert '<div id="data" hidden><div>H4sI</div></div>' in text
    script = re.search("<script>(.*)</script>", text, re.DOTALL)[1]
    assert "const mine = 7;" in script
    assert f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" in text


def test_data_is_packed_reproducibly() -> None:
    data = {"a": [1, None, "ü", "\ud83d"]}
    assert packed(data) == packed(data)
    assert json.loads(gzip.decompress(base64.b64decode(packed(data)))) == data


def luminance(color: str) -> float:
    digits = color if len(color) == 6 else "".join(2 * digit for digit in color)
    linear = [
        v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4
        for v in (int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4))
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("dark", [False, True])
def test_text_has_the_contrast_of_wcag_aa(dark):
    style = Path(page.__file__).with_name("base.css").read_text()
    block = re.findall(r":root \{(.*?)\}", style, re.DOTALL)[dark]
    colors = {name: luminance(value) for name, value in re.findall(r"--([\w-]+): #(\w+)", block)}
    pairs = [(text, back) for text in ("text", "soft") for back in ("page", "card", "code")]
    pairs += [
        (kind, back) for kind in ("keyword", "function", "string", "literal") for back in ("code", "bad-bg", "good-bg")
    ]
    pairs += [("text", "bad-bg"), ("text", "good-bg"), ("bad", "card")] + [
        (v, f"{v}-bg") for v in ("good", "bad", "open")
    ]
    for text, back in pairs:
        high, low = sorted((colors[text], colors[back]), reverse=True)
        assert (high + 0.05) / (low + 0.05) >= 4.5, f"{text} on {back}"
