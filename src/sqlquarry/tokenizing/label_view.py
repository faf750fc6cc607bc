"""Show one training example token by token: what the model reads, what it learns, and where its answer ends."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, Protocol

from sqlquarry.records import Record
from sqlquarry.text import visible
from sqlquarry.tokenizing.bound_tokens import BoundTokens
from sqlquarry.tokenizing.control_tokens import ending_token, special_tokens
from sqlquarry.tokenizing.token_texts import token_texts
from sqlquarry.tokenizing.tokenizer import Tokenizer

_FIRST, _LAST = 200, 100  # parts that are shown of a long prompt or answer
_CHARACTERS = 40  # characters that are shown of one part
_BLANK = re.compile(r"[^\S\n]")  # such as a no-break space
# Neighbors have two shades, so that the end of each token can be seen. In a notebook they are transparent, which suits
# light and dark themes.
_HTML_SHADES = {False: ("#8882", "#8885"), True: ("#2b83", "#2b87")}
_HTML_STOP = "#e338"
_ANSI_SHADES = {False: ("black on white", "black on bright_white"), True: ("black on green", "black on bright_green")}
_ANSI_STOP = "bold white on red"
_SIGNS = "· is a space, ↵ a line end, → a tab, ×3 marks characters of three tokens"


class LabelPart(NamedTuple):
    """One token, or several tokens that are parts of the same characters.

    Args:
        text: the text of the tokens.
        ids: the ids of the tokens.
        learned: whether the model learns to write them.
        special: whether this is a special token.
        stop: whether this token ends the answer.
    """

    text: str
    ids: tuple[int, ...]
    learned: bool
    special: bool
    stop: bool


@dataclass(frozen=True, slots=True, repr=False)
class LabelView:
    """One training example, token by token. Print it, or make it the last expression of a notebook's cell.

    Colors are used in notebooks and if standard output is a terminal. Without colors (``NO_COLOR``), learned tokens are
    in brackets. Characters that are invisible or that a terminal interprets are escaped. Long texts are shortened.

    Args:
        parts: the tokens in their order.
    """

    parts: Sequence[LabelPart]

    @property
    def prompt_tokens(self) -> int:
        """Number of tokens that the model reads but does not learn."""
        return sum(len(part.ids) for part in self.parts if not part.learned)

    @property
    def learned_tokens(self) -> int:
        """Number of tokens that the model learns to write, including the one that ends the answer."""
        return sum(len(part.ids) for part in self.parts if part.learned)

    @property
    def special_tokens(self) -> int:
        """Number of special tokens among all tokens."""
        return sum(part.special for part in self.parts)

    def __str__(self) -> str:
        from rich.console import Console
        from rich.text import Text

        console = Console(force_jupyter=False, legacy_windows=False)
        if not console.is_terminal or console.no_color or console.color_system is None:
            shown = "\n".join(f"{title}:\n{_plain(parts)}" for title, parts in self._passages())
            return f"{self._counts}\n{shown}\nprompt|tokens, [learned tokens], {{special tokens}}, {_SIGNS}"
        colored = Text(f"{self._counts}\n")
        for title, parts in self._passages():
            colored.append(f"{title}:\n")
            for place, part in enumerate(parts):
                if isinstance(part, str):
                    colored.append(part, "italic")
                else:
                    style = _ANSI_STOP if part.stop else _ANSI_SHADES[part.learned][place % 2]
                    colored.append(_shown(part), f"bold underline {style}" if part.special else style)
            colored.append("\n")
        colored.append(f"special tokens are bold, the red one ends the answer, {_SIGNS}", "dim")
        with console.capture() as captured:
            console.print(colored, soft_wrap=True, end="")
        return captured.get()

    __repr__ = __str__

    def _repr_html_(self) -> str:
        lines = [f"<div>{html.escape(self._counts)}</div>"]
        for title, parts in self._passages():
            lines.append(f'<div style="opacity:.75">{html.escape(title)}</div><div style="margin-bottom:.6em">')
            lines += [f"<i>{part}</i>" if isinstance(part, str) else _html(part, n % 2) for n, part in enumerate(parts)]
            lines.append("</div>")
        framed = '<span style="outline:1px solid">special tokens</span>'
        ends = f'<span style="outline:1px solid;background:{_HTML_STOP}">the token that ends the answer</span>'
        lines.append(f'<div style="opacity:.75">{framed}, {ends}, {html.escape(_SIGNS)}</div>')
        style = "font-family:monospace;line-height:1.7;white-space:pre-wrap;overflow-wrap:anywhere;direction:ltr"
        return f'<div style="{style};text-align:left">{"".join(lines)}</div>'

    @property
    def _counts(self) -> str:
        prompt, learned, special = self.prompt_tokens, self.learned_tokens, self.special_tokens
        return f"{prompt + learned:,} tokens: {prompt:,} in the prompt, {learned:,} learned. {special:,} are special."

    def _passages(self) -> Iterator[tuple[str, list[LabelPart | str]]]:
        """Yield a title and the parts of each passage with equal labels. In a long one, a count replaces the middle."""
        for learned, group in groupby(self.parts, key=lambda part: part.learned):
            parts: list[LabelPart | str] = [*group]
            hidden = parts[_FIRST:-_LAST]
            count = sum(len(part.ids) for part in hidden if not isinstance(part, str))
            if hidden:
                parts[_FIRST:-_LAST] = [f" … {count:,} more tokens … "]
            yield ("learned" if learned else "prompt, not learned"), parts


class _BoundFormatter(Protocol):
    """What a view needs of a bound `PromptFormatter`."""

    @property
    def tokens(self) -> BoundTokens | None: ...
    @property
    def add_special_tokens(self) -> bool: ...
    def prompt(self, record: Record) -> str: ...
    def text(self, record: Record) -> str: ...
    def encode(self, record: Record, tokenizer: Tokenizer) -> tuple[list[int], list[int]]: ...


def label_view(
    record: Record, formatter: _BoundFormatter, tokenizer: Tokenizer, *, completion_only_loss: bool
) -> LabelView:
    """Encode a record and return the view. Without SQL, or if everything is learned, it is encoded as one text."""
    if completion_only_loss and record.sql is not None:
        ids, labels = formatter.encode(record, tokenizer)
        learned = [label == token for label, token in zip(labels, ids, strict=True)]
    else:
        text = formatter.prompt(record) if record.sql is None else formatter.text(record)
        ids = tokenizer(text, add_special_tokens=formatter.add_special_tokens)["input_ids"]
        learned = [record.sql is not None] * len(ids)
    known = special_tokens(tokenizer)
    special = [token in known.values() for token in ids]
    stop_id = ending_token(formatter.tokens.stop if formatter.tokens else "", known)
    stop = max((place for place, token in enumerate(ids) if token == stop_id and learned[place]), default=None)
    borders = [n for n in range(1, len(ids)) if special[n] or special[n - 1] or learned[n] != learned[n - 1]]
    return LabelView(
        tuple(
            LabelPart(text, tuple(ids[start:end]), learned[start], special[start], start == stop)
            for text, start, end in token_texts(ids, tokenizer, borders)
        )
    )


def _plain(parts: Sequence[LabelPart | str]) -> str:
    shown = ""
    for part in parts:
        if isinstance(part, str):
            shown += part
            continue
        text = f"{{{_shown(part)}}}" if part.special else _shown(part)
        shown += f"[{text}{' ends the answer' if part.stop else ''}]" if part.learned else f"{text}|"
    return shown


def _html(part: LabelPart, shade: int) -> str:
    color = _HTML_STOP if part.stop else _HTML_SHADES[part.learned][shade]
    frame = ";outline:1px solid" if part.special else ""
    ids = " ".join(map(str, part.ids))
    # In <bdi>, text from right to left does not reorder its neighbors.
    return f'<bdi style="background:{color}{frame}" title="{ids}">{html.escape(_shown(part))}</bdi><wbr>'


def _shown(part: LabelPart) -> str:
    """Return the text with visible white space, without control characters, and not longer than necessary."""
    text = part.text if len(part.text) <= _CHARACTERS else f"{part.text[:_CHARACTERS]}…"
    text = visible(text.replace(" ", "·").replace("\t", "→").replace("\n", "↵\n"))
    text = _BLANK.sub(lambda found: f"\\u{{{ord(found[0]):x}}}", text)
    if text and unicodedata.category(text[0]).startswith("M"):
        text = f"◌{text}"  # otherwise the mark would be drawn on the character before it
    return f"{text}×{len(part.ids)}" if len(part.ids) > 1 else text
