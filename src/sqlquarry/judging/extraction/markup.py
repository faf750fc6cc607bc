"""Parse the markup of an answer: thoughts, turns, tags, code blocks and JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from sqlquarry.judging.extraction.statement import SPECIAL, begins

_THOUGHT = r"(?:think|thinking|thought|thoughts|reasoning|reflection|scratchpad|analysis|internal)"
# In quotes on one line, a tag is a value in the query: WHERE b = '</think>'.
_THOUGHT_END = re.compile(rf"(?<!\w)'[^'\n]{{0,200}}'(?!\w)|(?P<end></{_THOUGHT}>)", re.IGNORECASE)
_THOUGHT_START = re.compile(rf"(?<!\w)'[^'\n]{{0,200}}'(?!\w)|(?P<start><{_THOUGHT}>)", re.IGNORECASE)
# gpt-oss and other models give each message a channel. The answer is in the channel final, or is the last message.
_CHANNEL = re.compile(
    r"<\|channel\|>\s*(\w{1,20})[^<\n]{0,60}(?:<\|constrain\|>[^<\n]{0,60})?<\|message\|>", re.IGNORECASE
)
_TURN_END = re.compile(
    r"(?<!\w)'[^'\n]{0,200}'(?!\w)|(?P<end><\|[\w ]{2,40}\|>|</s>|\[/?INST\]|<(?:end|start)_of_turn>|<eos>)"
)
# The model's turn may begin with the end of the prompt, special tokens and the name of its role.
_LEADING = re.compile(rf"\s*(?:{SPECIAL})(?:\s*(?:assistant|model)\b(?=\s*<\|))?")

_TAG = re.compile(
    r"(?:\[SQL\]|(?P<boxed>\\boxed\{(?:\\text\{)?)|<(?P<name>sql|sql_?query|query|answer|final_?answer|final|output|response|result)>)",
    re.IGNORECASE,
)
# A string of several lines in a program: query = """...""".
_PROGRAM_TEXT = re.compile(r"[=(,]\s{0,9}[bfru]{0,2}(?P<mark>\"{3}|'{3})", re.IGNORECASE)
_FENCE = re.compile(r"(?P<fence>```+|~~~+)[ \t]*(?:(?P<language>[\w+-]+)[ \t]*(?=\n)|(?i:sql(?:ite)?\b))?")
_OTHER_LANGUAGES = frozenset(
    ("python", "py", "bash", "sh", "shell", "text", "txt", "plaintext", "output", "csv", "java")
)
_FINAL = re.compile(
    r"\b(?:correct(?:ed|ion)?|final|fix(?:ed)?|revised?|refined?|improved?|updated?|complete|full|instead|rewritten|actual|"
    r"better|together|combined?)\b",
    re.IGNORECASE,
)
_LEAD_CHARACTERS = 200  # length of the text before a part that may announce it
_SQL_KEYS = (
    "sql",
    "sql_query",
    "sqlquery",
    "query",
    "final_sql",
    "final_query",
    "statement",
    "answer",
    "code",
    "output",
)
_SQL_VALUE = re.compile(
    r"\"(?:sql|sql_?query|query|statement|answer)\"\s*:\s*\"((?:[^\"\\]|\\.)*)", re.IGNORECASE | re.DOTALL
)
_PARTS, _JSON_STARTS, _JSON_DEPTH = 40, 8, 6


class Part(NamedTuple):
    """A marked part of an answer, and whether the text before it calls it corrected or final."""

    text: str
    is_final: bool = False


def turn_of(text: str) -> str:
    """Return the model's answer without its thoughts and the special tokens before it."""
    if messages := list(_CHANNEL.finditer(text)):
        final = next((m for m in reversed(messages) if m[1].lower() == "final"), messages[-1])
        text = text[final.end() :]
    ends = [found.end() for found in _THOUGHT_END.finditer(text) if found["end"]]
    text = text[ends[-1] :] if ends else text
    starts = [found.start() for found in _THOUGHT_START.finditer(text) if found["start"]]
    text = text[: starts[0]] if starts else text
    if text[:20].lstrip().removeprefix("<s>").lstrip().startswith("[INST]"):  # the model repeated the prompt
        text = text.partition("[/INST]")[2]
    while leading := _LEADING.match(text):
        text = text[leading.end() :]
    return text


def first_turn(text: str) -> str:
    """Return the text up to the special token that ends the model's turn."""
    return next((text[: found.start()] for found in _TURN_END.finditer(text) if found["end"]), text)


def marked_parts(text: str) -> Iterator[list[Part]]:
    """Yield the contents of tags, SQL code blocks, other code blocks and strings in programs, in this order."""
    yield [Part(content, _announced(text, start)) for start, content in islice(_tagged(text), _PARTS)]
    blocks = list(islice(_fenced(text), _PARTS))
    yield [
        Part(content, _announced(text, start))
        for start, language, content in blocks
        if language not in _OTHER_LANGUAGES
    ]
    yield [Part(content) for _, language, content in blocks if language in _OTHER_LANGUAGES]
    yield [Part(content) for content in islice(_program_texts(text), _PARTS)]


def unmarked(text: str) -> str:
    """Return the text between code blocks and tags."""
    pieces, end = [], 0
    for start, _, content in _fenced(text):
        pieces.append(text[end:start])
        end = text.find(content, start) + len(content)
    rest = "\n\n".join((*pieces, text[end:].lstrip("`~")))
    return _TAG.sub("\n", rest)


def json_parts(text: str) -> list[Part]:
    """Return the SQL in JSON objects such as ``{"sql": "SELECT 1"}`` anywhere in the text, even if one is cut off."""
    decoder = json.JSONDecoder(strict=False)  # models write line breaks in strings without escaping them
    place = -1
    for _ in range(_JSON_STARTS):
        place = min((at for sign in "{[" if (at := text.find(sign, place + 1)) >= 0), default=-1)
        if place < 0:
            return []
        try:
            content, _end = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            continue
        if found := list(_values(content, _JSON_DEPTH)):
            named = [value for key, value in found if key in _SQL_KEYS]
            return [Part(value) for value in (*named, *(value for _, value in found))]
    if cut := _SQL_VALUE.search(text):
        return [Part(_unescaped(cut[1]))]
    return []


def _values(content: object, depth: int, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield keys and texts that may be SQL. A text may contain JSON, as in the arguments of a tool call."""
    if not depth:
        return
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _values(value, depth - 1, name.lower())
    elif isinstance(content, list):
        for value in content:
            yield from _values(value, depth - 1, key)
    elif isinstance(content, str):
        if content.lstrip().startswith(("{", "[")):
            try:
                yield from _values(json.loads(content, strict=False), depth - 1, key)
            except (ValueError, RecursionError):
                return
        elif begins(content.strip()) or key in _SQL_KEYS:
            yield key, content


def _unescaped(text: str) -> str:
    try:
        return str(json.loads(f'"{text}"', strict=False))
    except ValueError:
        return text


def _tagged(text: str) -> Iterator[tuple[int, str]]:
    end = 0
    while found := _TAG.search(text, end):
        closing = "}" if found["boxed"] else f"</{found['name']}>" if found["name"] else "[/SQL]"
        closed = re.compile(re.escape(closing), re.IGNORECASE).search(text, found.end())
        end = closed.end() if closed else len(text)
        yield found.start(), text[found.end() : closed.start() if closed else len(text)]


def _fenced(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield start, language and content of each code block. The last block may have no end."""
    end = 0
    while found := _FENCE.search(text, end):
        closed = text.find(found["fence"], found.end())
        end = closed + len(found["fence"]) if closed >= 0 else len(text)
        yield found.start(), (found["language"] or "").lower(), text[found.end() : closed if closed >= 0 else len(text)]


def _program_texts(text: str) -> Iterator[str]:
    end = 0
    while found := _PROGRAM_TEXT.search(text, end):
        closed = text.find(found["mark"], found.end())
        end = closed + 3 if closed >= 0 else len(text)
        yield text[found.end() : closed if closed >= 0 else len(text)]


def _announced(text: str, start: int) -> bool:
    lead = text[max(0, start - _LEAD_CHARACTERS) : start].strip()
    return bool(_FINAL.search(lead.rpartition("\n\n")[2] or lead))
