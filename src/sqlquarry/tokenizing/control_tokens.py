"""Find the special token that ends an answer, and special tokens in the text of records.

A tokenizer replaces the text of a special token, wherever it occurs, by the token itself. If that happens in an answer,
the model learns to stop in the middle of its SQL, and a server leaves the text out of its response.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

from sqlquarry.errors import ConfigError, RecordError
from sqlquarry.records import Record
from sqlquarry.text import first_of

_SHOWN = 5


def special_tokens(tokenizer: object) -> dict[str, int]:
    """Return the text and id of each special token of a transformers tokenizer.

    Tokens that were added as ordinary words are left out, because they are decoded to their text.
    """
    added = getattr(tokenizer, "added_tokens_decoder", {})
    return {str(token): number for number, token in added.items() if token.special and str(token)}


def ending_token(text: str, tokens: Mapping[str, int]) -> int | None:
    """Return the id of the special token at the end of `text`, or None if there is none.

    This token ends an answer. The exported `eos_token_id` and `LocalModel` both derive it from the prompt's stop text.
    """
    matches = [content for content in tokens if content and text.endswith(content)]
    return int(tokens[max(matches, key=len)]) if matches else None


def stop_token_id(tokenizer: object, stop: str) -> int:
    """Return the id of the token that ends an answer, derived from a prompt's stop text.

    Raises:
        ConfigError: the stop text does not end with a special token of the tokenizer.
    """
    special = special_tokens(tokenizer)
    token = ending_token(stop, special)
    if token is None:
        raise ConfigError(
            f"the prompt's stop text {stop!r} does not end with a special token of the tokenizer "
            f"({', '.join(list(special)[:_SHOWN])}, …). Generation stops only at such a token, so every answer would "
            "run to its limit. End the assistant's turn with {{ eos_token }}, or use the prompt the model was trained "
            "with."
        )
    return token


def refuse_in_answers(records: Sequence[Record], tokenizer: object) -> None:
    """Check that no answer contains the text of a special token.

    Raises:
        RecordError: some answers do. The message names the records and tokens.
    """
    found = [(records[place].id or f"record {place}", token) for place, token in tokens_in_answers(records, tokenizer)]
    if found:
        shown = first_of([f"{name} ({token})" for name, token in found], _SHOWN)
        raise RecordError(
            f"the SQL of {len(found):,} of {len(records):,} records contains the text of a special token: {shown}. "
            "The tokenizer would replace it by the token itself, so the model would learn to stop or switch roles "
            "there. Leave these records out, or split the text, as in '<|im_' || 'end|>'."
        )


def tokens_in_answers(records: Iterable[Record], tokenizer: object) -> Iterator[tuple[int, str]]:
    """Yield the positions of records whose SQL contains the text of a special token, with the first such token."""
    pattern = _pattern(tokenizer)
    if pattern is None:
        return
    for place, record in enumerate(records):
        if record.sql is not None and (match := pattern.search(record.sql)):
            yield place, match[0]


def note_in_prompts(records: Iterable[Record], tokenizer: object) -> str | None:
    """Return a note that counts the prompts with the text of a special token, or None if there are none.

    Such records can be used, because training and serving convert the text to the same tokens.
    """
    pattern = _pattern(tokenizer)
    if pattern is None:
        return None
    counts: Counter[str] = Counter()
    affected = 0
    for record in records:
        tokens = {token for text in (record.question, record.schema, record.notes) for token in pattern.findall(text)}
        counts.update(tokens)
        affected += bool(tokens)
    if not affected:
        return None
    listed = ", ".join(f"{token} in {count:,}" for token, count in counts.most_common(_SHOWN))
    return (
        f"{affected:,} records contain the text of a special token in their question, schema or notes, which the "
        f"model reads as the token itself: {listed}"
    )


def _pattern(tokenizer: object) -> re.Pattern[str] | None:
    # If two tokens match, the tokenizer takes the longer one.
    texts = sorted(special_tokens(tokenizer), key=len, reverse=True)
    return re.compile("|".join(map(re.escape, texts))) if texts else None
