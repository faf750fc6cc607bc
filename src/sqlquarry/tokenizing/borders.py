"""Find borders in a prompt that no token crosses, so that its parts can be tokenized on their own.

A border is safe if each step of the tokenizer treats the text before it and the text after it as if the other did not
exist. Both kinds of borders below are in the constant text of a prompt. So they are safe for any text of a record.

1. **Before a special token**, such as the end of a turn. The tokenizer first cuts a text at these tokens and handles
   the parts alone. Here, no token of this kind starts inside another one, so none can cover the border.
2. **Before a space between two visible ASCII characters**, such as in "context: Create". Step by step:

   - Added tokens contain no space and take no white space with them, so they do not reach across.
   - NFC never combines a space with a character before it.
   - A pre-tokenizer that cuts out words takes a space only as the first character of a word, or in a run of white
     space. `_WORDS` lists the patterns for which this is proven. They look at what follows, but only within white
     space, and never at what precedes.
   - Without such a pre-tokenizer (SentencePiece), BPE can join any neighbors, but only into a token of its vocabulary.
     If no token contains this character followed by a space, none can be formed.
   - SentencePiece tokenizers put a space before a text. Some do so even if there is one, and also after each added
     token. So the piece begins after its space, and no added token begins or ends at that space.

If a tokenizer has any other step, it gets no borders.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from sqlquarry.files.metadata import JsonObject

if TYPE_CHECKING:
    import tokenizers

_SPACE = "▁"  # what SentencePiece makes of a space
_BETWEEN = re.compile(r"(?<=[!-~]) (?=[!-~])")
# The alternatives in the patterns of GPT-2, SmolLM2, Llama 3, Qwen 2 to 3.5 and Mistral's Tekken. In each of them, a
# space can only be the first character, or all characters are white space.
_LETTERS = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORDS = {
    *(f"'{ending}" for ending in ("s", "t", "re", "ve", "m", "ll", "d")),
    "(?i:'s|'t|'re|'ve|'m|'ll|'d)",
    r"[^\r\n\p{L}\p{N}]?\p{L}+",
    r"[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS[0]}*{_LETTERS[1]}+",
    rf"[^\r\n\p{{L}}\p{{N}}]?{_LETTERS[0]}+{_LETTERS[1]}*",
    r"\p{N}",
    r"\p{N}{1,3}",
    r" ?\p{L}+",
    r" ?\p{N}+",
    r" ?[^\s\p{L}\p{N}]+",
    r" ?[^\s\p{L}\p{N}]+[\r\n]*",
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*",
    r" ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*",
    r"\s*[\r\n]+",
    r"\s+(?!\S)",
    r"\s+",
}
_OUTSIDE_GROUPS = re.compile(r"\|(?![^(]*\))")


class Border(NamedTuple):
    """A place in a text, and the number of characters after it that are left out when the rest is tokenized alone."""

    place: int
    skipped: int = 0


@dataclass(frozen=True, slots=True)
class Borders:
    """The safe borders for one tokenizer.

    Args:
        special: matches the tokens before which there is a border. None if there are none.
        first: first characters of added tokens.
        last: last characters of added tokens.
        vocabulary: the tokens, if words are not cut out before BPE.
        prepends: the normalizer puts a space before every text.
    """

    special: re.Pattern[str] | None
    first: Collection[str]
    last: Collection[str]
    vocabulary: Collection[str] | None = None
    prepends: bool = False

    def within(self, literal: str) -> list[Border]:
        """Return the borders in a constant part of a prompt, in their order."""
        found = [Border(match.start()) for match in self.special.finditer(literal)] if self.special else []
        for match in _BETWEEN.finditer(literal):
            before, after = literal[match.start() - 1], literal[match.end()]
            if after not in self.first and before not in self.last and self._keeps_apart(before):
                found.append(Border(match.start(), int(self.prepends)))
        return sorted(found)

    def _keeps_apart(self, character: str) -> bool:
        """Return whether BPE cannot join a character and a space after it."""
        if self.vocabulary is None:
            return True
        known = character in self.vocabulary and _SPACE in self.vocabulary
        return known and not any(character + _SPACE in token for token in self.vocabulary)


def find_borders(backend: tokenizers.Tokenizer) -> Borders | None:
    """Return the safe borders for a tokenizer, or None if it has a step for which nothing is proven."""
    steps = _steps(backend)
    model = backend.model
    if steps is None or type(model).__name__ != "BPE" or model.dropout:
        return None
    if model.continuing_subword_prefix or model.end_of_word_suffix:
        return None
    added = list(backend.get_added_tokens_decoder().values())
    if any(one.lstrip or one.rstrip or one.single_word or {" ", _SPACE} & set(one.content) for one in added):
        return None
    normalizers, splits = steps
    special = None if backend.encode_special_tokens else _before_tokens(added)
    edges = {one.content[:1] for one in added}, {one.content[-1:] for one in added}
    if set(map(_plain, normalizers)) <= {"NFC"} and _cut_words(splits):
        return Borders(special, *edges)
    if not model.ignore_merges and _is_sentencepiece(normalizers, splits):
        vocabulary = backend.get_vocab(with_added_tokens=False).keys()
        return Borders(special, *edges, vocabulary, prepends="Prepend" in map(_plain, normalizers))
    return None


def _steps(backend: tokenizers.Tokenizer) -> tuple[list[JsonObject], list[JsonObject]] | None:
    """Return the steps of the normalizer and of the pre-tokenizer. None if a step is written in Python."""
    found: list[list[JsonObject]] = []
    for part, inner in ((backend.normalizer, "normalizers"), (backend.pre_tokenizer, "pretokenizers")):
        try:
            step = None if part is None else json.loads(part.__getstate__())
        except Exception:  # noqa: BLE001 - the Rust code raises plain Exception
            return None
        found.append(list(_flat(step, inner)))
    return found[0], found[1]


def _flat(step: JsonObject | None, inner: str) -> Iterator[JsonObject]:
    if step and step["type"] == "Sequence":
        for one in step[inner]:
            yield from _flat(one, inner)
    elif step:
        yield step


def _before_tokens(added: list[tokenizers.AddedToken]) -> re.Pattern[str] | None:
    """Match the tokens that are found in the raw text and that no other added token can overlap."""
    inside = {character for one in added for character in one.content[1:]}
    texts = [one.content for one in added if one.content and not one.normalized and one.content[0] not in inside]
    return re.compile("|".join(map(re.escape, sorted(texts, key=len, reverse=True)))) if texts else None


def _plain(step: JsonObject) -> str:
    """Return the type of a normalizer whose effect is known, and "" for others."""
    known: dict[str, JsonObject] = {
        "NFC": {"type": "NFC"},
        "Prepend": {"type": "Prepend", "prepend": _SPACE},
        "Replace": {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE},
    }
    return step["type"] if known.get(step["type"]) == step else ""


def _cut_words(splits: list[JsonObject]) -> bool:
    """Return whether the pre-tokenizer cuts before each space that follows a visible character."""
    # Digits are cut out by what they are, whatever surrounds them. Later steps only cut the words into smaller parts.
    steps = [step for step in splits if step["type"] != "Digits"]
    return bool(steps) and _cuts(steps[0]) and all(step["type"] == "ByteLevel" or _cuts(step) for step in steps)


def _cuts(step: JsonObject) -> bool:
    if step["type"] == "ByteLevel":
        return bool(step.get("use_regex", True))  # with the pattern of GPT-2
    if step["type"] != "Split" or (step["behavior"], step["invert"]) not in (("Isolated", False), ("Removed", True)):
        return False
    words = _OUTSIDE_GROUPS.split(step["pattern"].get("Regex", ""))
    return r"\s+" in words and _WORDS.issuperset(words)


def _is_sentencepiece(normalizers: list[JsonObject], splits: list[JsonObject]) -> bool:
    """Return whether spaces become "▁" and nothing else happens before BPE."""
    kinds = [_plain(step) for step in normalizers]
    metaspace = bool(splits) and splits[0]["type"] == "Metaspace" and splits[0]["replacement"] == _SPACE
    if kinds in ([], ["NFC"]):
        return metaspace and len(splits) == 1
    return kinds in (["Replace"], ["Prepend", "Replace"]) and (not splits or (metaspace and len(splits) == 1))
