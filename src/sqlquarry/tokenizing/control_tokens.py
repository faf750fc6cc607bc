"""Special tokens of a tokenizer: which one ends an answer, and which ones the text of a record would turn into.

A tokenizer replaces the text of a special token, wherever it occurs, by the token itself. In an answer that teaches the
model to stop in the middle of its SQL, and a server leaves the text out of what it returns.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.records import Record
from sqlquarry.text import first_of

_SHOWN = 5


def special_tokens(tokenizer: object) -> dict[str, int]:
    """Return the text and id of each special token of a transformers tokenizer.

    Tokens that were added as ordinary words are left out: they are decoded to their text.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {str(token): number for number, token in added.items() if token.special and str(token)}


def ending_token(text: str, tokens: Mapping[str, int]) -> int | None:
    """Return the id of the special token that `text` ends with; None if it ends with none.

    This is what ends an answer: the exported `eos_token_id` and `LocalModel` both take it from the prompt's stop text.
    """
    matches = [content for content in tokens if content and text.endswith(content)]
    return int(tokens[max(matches, key=len)]) if matches else None


def stop_token_id(tokenizer: object, stop: str) -> int:
    """Return the id of the token that ends an answer, from a prompt's stop text.

    Raises:
        ConfigError: the text ends with no special token of the tokenizer.
    """
    special = special_tokens(tokenizer)
    token = ending_token(stop, special)
    if token is None:
        raise ConfigError(
            f"answers end with {stop!r}, which does not end with a special token of the tokenizer "
            f"({', '.join(list(special)[:_SHOWN])}, …). Generation stops at such a token only, so they would run on to "
            "their limit. End the assistant's turn with {{ eos_token }}, or use the prompt of the model's training."
        )
    return token


def refuse_in_answers(records: Sequence[Record], tokenizer: object) -> None:
    """Check that no answer contains the text of a special token.

    Raises:
        RecordError: some do; the message names records and tokens.
    """
    pattern = _pattern(tokenizer)
    if pattern is None:
        return
    found = [
        (record.id or f"record {place}", match[0])
        for place, record in enumerate(records)
        if record.sql is not None and (match := pattern.search(record.sql))
    ]
    if found:
        shown = first_of([f"{name} ({token})" for name, token in found], _SHOWN)
        raise RecordError(
            f"the SQL of {len(found):,} of {len(records):,} records contains the text of a special token: {shown}. "
            "The tokenizer would turn it into the token itself, so the model "
            "would learn to stop or to switch roles there. Leave these records out, or split the text, as in "
            "'<|im_' || 'end|>'."
        )


def note_in_prompts(records: Iterable[Record], tokenizer: object) -> str | None:
    """Return a note that counts the questions and schemas with the text of a special token; None if there are none.

    They can be used: training and serving make the same tokens of them.
    """
    pattern = _pattern(tokenizer)
    if pattern is None:
        return None
    counts: Counter[str] = Counter()
    affected = 0
    for record in records:
        tokens = {*pattern.findall(record.question), *pattern.findall(record.schema)}
        counts.update(tokens)
        affected += bool(tokens)
    if not affected:
        return None
    listed = ", ".join(f"{token} in {count:,}" for token, count in counts.most_common(_SHOWN))
    return (
        f"{affected:,} records have the text of a special token in their question or schema, which the model reads as "
        f"the token itself: {listed}"
    )


def _pattern(tokenizer: object) -> re.Pattern[str] | None:
    texts = sorted(
        special_tokens(tokenizer), key=len, reverse=True
    )  # of two that match, the tokenizer takes the longer
    return re.compile("|".join(map(re.escape, texts))) if texts else None
