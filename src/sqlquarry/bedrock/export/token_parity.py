"""Compare the token ids of a server with those of the training, on prompts that reveal most differences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from sqlquarry.errors import ConfigError, MissingExtraError, UnsupportedModelError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.reading_equality import Reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

_TEXTS = (
    "How many orders are there?",
    " one space in front",
    "  two  spaces \n\n\tand  lines \n",
    "",
    "\n",
    "\u00e9 e\u0301 \u6f22\u5b57 \U0001f600 \u00a0x\u200b",
    "don't DON'T 2024-01-02 12345",
    "<unk> \u2581 [INST] a [/INST]",
)
_SCHEMA = 'CREATE TABLE orders (id INT, "caf\u00e9" TEXT)'
_MAX_TOKENS = 64  # enough for most models, though some reserve hundreds of special tokens
_SHOWN_CHARACTERS = 60


@dataclass(frozen=True, slots=True)
class TokenDifference:
    """A prompt that becomes different tokens under two readings of a tokenizer.

    Args:
        prompt: the text.
        served: token ids if transformers 4.51.3 reads the files. Empty if they cannot be counted.
        trained: token ids as in the training.
    """

    prompt: str
    served: tuple[int, ...]
    trained: tuple[int, ...]

    def __str__(self) -> str:
        if not self.served and not self.trained:
            return (
                "transformers 4.51.3 makes other tokens from a text than transformers 5 (to count them, install "
                "tokenizers)"
            )
        text = self.prompt if len(self.prompt) <= _SHOWN_CHARACTERS else "…" + self.prompt[-_SHOWN_CHARACTERS:]
        at = next(
            (place for place, pair in enumerate(zip(self.served, self.trained, strict=False)) if pair[0] != pair[1]),
            min(len(self.served), len(self.trained)),
        )
        return (
            f"transformers 4.51.3 makes {len(self.served)} tokens from {text!r}, but transformers 5 makes "
            f"{len(self.trained)}. From token {at + 1}, they are {list(self.served[at : at + 4])} and "
            f"{list(self.trained[at : at + 4])}"
        )


def first_difference(
    files: TokenizerFiles, served: Reading, trained: Reading, prompts: Iterable[str] = ()
) -> TokenDifference | None:
    """Compare the ids of prompts, with and without the special tokens that are added around a text.

    Args:
        files: the tokenizer's files.
        served: the files as transformers 4.51.3 reads them.
        trained: the files as the training read them.
        prompts: more texts, compared first.

    Returns:
        The first difference, or None.
    """
    try:
        one, other = (FileTokenizer(reading, files.config) for reading in (served, trained))
    except MissingExtraError:
        return TokenDifference("", (), ())
    added = [str(token["content"]) for token in trained.get("added_tokens") or ()]
    # Special tokens are at the beginning or the end of the list.
    added = [*added[: _MAX_TOKENS // 2], *added[_MAX_TOKENS // 2 :][-_MAX_TOKENS // 2 :]]
    for text in [*prompts, *_TEXTS, *_around(added)]:
        for adds in (True, False):
            ids = [_ids(each, text, adds=adds) for each in (one, other)]
            if ids[0] != ids[1]:
                return TokenDifference(text, *ids)
    return None


def formatter_prompts(formatter: PromptFormatter) -> list[str]:
    """Return prompts of a few records with difficult text, or an empty list if the prompt cannot be rendered."""
    tokens = formatter.tokens
    special = [token for token in (tokens.bos, tokens.eos) if token] if tokens else []
    questions = [
        "How many orders are there?",
        "  Wie hei\u00dft \u6f22\u5b57?\n\nAnd  \U0001f600?",
        *(f"{s} a{s}b {s}" for s in special),
    ]
    try:
        return [formatter.prompt(Record(question, _SCHEMA)) for question in questions]
    except ConfigError:
        return []  # another check reports this


def _ids(tokenizer: FileTokenizer, text: str, *, adds: bool) -> tuple[int, ...]:
    try:
        return tuple(tokenizer(text, add_special_tokens=adds)["input_ids"])
    except UnsupportedModelError:
        return ()  # the tokenizer lacks a token for a part of the text, so both versions fail


def _around(tokens: Iterable[str]) -> Iterator[str]:
    """Yield texts with an added token at the start, inside and at the end, with and without white space around it."""
    for token in tokens:
        yield from (
            token,
            f"a{token}b",
            f"a {token} b",
            f"a\n{token}\n b",
            f"{token} a",
            f" {token}",
            f"a{token}{token}",
        )
