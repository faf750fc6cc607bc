"""Find what the base cannot take of the records: more positions than it has, and tokens that it has no row for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlquarry.prompt import Encoded
from sqlquarry.records import Record
from sqlquarry.text import first_of
from sqlquarry.training.base.shape import ModelShape

_MEND = (
    "give them rows (model.resize_token_embeddings(len(tokenizer)), and save the base), or take them out of its "
    "tokenizer"
)


def base_problems(
    records: Sequence[Record], examples: Sequence[Encoded], shape: ModelShape, tokenizer: object
) -> Iterator[str]:
    """Yield what no run on this base can learn from, in words.

    A row packs many records, but positions count from 0 in each, so only a record's own tokens matter.

    Args:
        records: to be trained on or evaluated.
        examples: the same, encoded.
        shape: of the base.
        tokenizer: that made the examples.
    """
    limit = shape.positions
    lengths = [len(example.input_ids) for example in examples]
    if limit is not None and (longer := [place for place, tokens in enumerate(lengths) if tokens > limit]):
        longest = max(longer, key=lambda place: lengths[place])
        yield (
            f"{len(longer):,} of {len(records):,} records have more tokens than the {limit:,} positions of the base "
            f"(max_position_embeddings); the longest is {records[longest].id or f'record {longest}'} with "
            f"{lengths[longest]:,}. It was never trained beyond them: shorten the schemas, leave these records out, or "
            "take a base with a longer context"
        )
    if not hasattr(tokenizer, "convert_ids_to_tokens"):  # an estimate: its tokens are not tokens of the base
        return
    used = {token for example in examples if max(example.input_ids) >= shape.vocabulary for token in example.input_ids}
    if unknown := sorted(token for token in used if token >= shape.vocabulary):
        texts = [f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in unknown]
        yield (
            f"the prompt or the records use {_named(texts)}, but the base's embeddings have "
            f"{shape.vocabulary:,} rows: {_MEND}"
        )


def tokens_without_rows(tokenizer: object, rows: int) -> str:
    """Return a note on the tokens that the tokenizer knows and the base does not; "" if there are none."""
    vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
    unknown = sorted((token, text) for text, token in vocabulary.items() if token >= rows)
    if not unknown:
        return ""
    texts = [f"{text!r} ({token})" for token, text in unknown]
    return (
        f"the tokenizer knows {_named(texts)}, but the base's embeddings have {rows:,} rows: text with "
        f"these tokens will be refused. To use them, {_MEND}"
    )


def _named(tokens: Sequence[str]) -> str:
    return f"the token{'s' if len(tokens) > 1 else ''} {first_of(tokens)}"
