"""Find records that a base cannot learn from: they are longer than its context, or use tokens without an embedding."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlquarry.records import Record
from sqlquarry.text import first_of
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.training.base.shape import ModelShape

_REMEDY = (
    "add rows for them (model.resize_token_embeddings(len(tokenizer)), then save the base model), or remove them from "
    "its tokenizer"
)


def base_problems(
    records: Sequence[Record], examples: EncodedRecords, shape: ModelShape, tokenizer: object
) -> Iterator[str]:
    """Yield the reasons why no run on this base can learn from the records.

    A packed row contains many records, but positions start at 0 in each, so only the length of a record matters.

    Args:
        records: records for training or evaluation.
        examples: the same records, encoded.
        shape: the base's sizes.
        tokenizer: the tokenizer of the examples.
    """
    limit = shape.positions
    lengths = examples.lengths
    if limit is not None and (longer := [index for index, tokens in enumerate(lengths) if tokens > limit]):
        longest = max(longer, key=lambda index: lengths[index])
        yield (
            f"{len(longer):,} of {len(records):,} records have more tokens than the base model's {limit:,} positions "
            f"(max_position_embeddings). The longest is {records[longest].id or f'record {longest}'} with "
            f"{lengths[longest]:,} tokens. The base model was never trained on such positions. Shorten the schemas, "
            "leave these records out, or use a base model with a longer context."
        )
    if not hasattr(tokenizer, "convert_ids_to_tokens"):  # a `TokenEstimator` has no tokens of the base
        return
    if unknown := sorted(token for token in examples.vocabulary() if token >= shape.vocabulary):
        texts = [f"{tokenizer.convert_ids_to_tokens(token)!r} ({token})" for token in unknown]
        yield (
            f"the prompt or the records use {_named(texts)}, but the embeddings of the base model have only "
            f"{shape.vocabulary:,} rows. To use these tokens, {_REMEDY}."
        )


def tokens_without_rows(tokenizer: object, rows: int) -> str:
    """Return a note on the tokenizer's tokens for which the base has no row, or "" if there are none."""
    vocabulary: dict[str, int] = getattr(tokenizer, "get_vocab", dict)()
    unknown = sorted((token, text) for text, token in vocabulary.items() if token >= rows)
    if not unknown:
        return ""
    texts = [f"{text!r} ({token})" for token, text in unknown]
    return (
        f"the tokenizer has {_named(texts)}, but the embeddings of the base model have only {rows:,} rows. Text with "
        f"these tokens will be refused. To use them, {_REMEDY}."
    )


def _named(tokens: Sequence[str]) -> str:
    return f"the token{'s' if len(tokens) > 1 else ''} {first_of(tokens)}"
