"""Docstrings, comments, messages and pages avoid phrases that native readers stumble over."""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("src", "tests", "tools", "examples", "benchmarks")
# Each phrase with what to write instead.
PHRASES = {
    r"\bgo(es|ing|ne)? on (with|from|where)\b": "resume or continue",
    r"(?<!, )\bso many\b": "the number's name",
    r"(?<![Tt]here )\b(is|are|was|were) no (?!longer|more)\w": "is not a …, with the reason",
    r"\bnone of (its|their)\b": "no … of …",
    r"\b[Nn]one where\b|\bwhere there (is|are)\b": "None if, if there is",
    r"\bof (ours|before)\b|\bthe former\b": "the noun again",
    r"\b[Bb]esides\b|\bapart[.;,:]": "also, separately",
    r"\b(quanti|normali|optimi|seriali|initiali|tokeni|recogni|summari)s(e|es|ed|ing|ation)\b": "-ize",
    r"\b(behaviou|colou|favou)r": "American spelling",
}


def prose(path: Path) -> Iterator[tuple[int, str]]:
    """Line and text of each comment and each string with a space, or of a page without its code blocks."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        yield 1, re.sub(r"^```.*?^```", lambda block: "\n" * block[0].count("\n"), text, flags=re.MULTILINE | re.DOTALL)
        return
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def findings(path: Path) -> Iterator[str]:
    for line, text in prose(path):
        for phrase, instead in PHRASES.items():
            for found in re.finditer(phrase, text):
                at = line + text[: found.start()].count("\n")
                yield f"{path.name}:{at}: {found[0]!r} (write: {instead})"


@pytest.mark.parametrize("root", [*FOLDERS, "docs", "."])
def test_no_text_has_a_phrase_that_readers_stumble_over(root):
    files = ROOT.glob("*.md") if root == "." else sorted((ROOT / root).rglob("*"))
    texts = [path for path in files if path.suffix in (".py", ".md") and path != Path(__file__)]
    assert texts
    problems = [found for path in texts for found in findings(path)]
    assert not problems, "\n".join(problems)
