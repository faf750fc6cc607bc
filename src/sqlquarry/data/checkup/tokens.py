"""Count the tokens of records, and find gold queries that a tokenizer does not read as text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from sqlquarry.data.checkup.checked import Checked
from sqlquarry.data.checkup.findings import Check, Finding, Kind
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.control_tokens import tokens_in_answers
from sqlquarry.tokenizing.tokenizer import Tokenizer

KINDS = (
    Kind(
        "special-token",
        "error",
        "The gold query contains the text of a special token",
        "Remove the record, or split the text, as in '<|im_' || 'end|>'. The tokenizer replaces it by the token "
        "itself, so the model would learn to stop there. Training refuses such records.",
        needs="tokenizer",
    ),
)


def token_lengths(records: Sequence[Record], formatter: PromptFormatter, tokenizer: Tokenizer) -> list[int]:
    """Return the number of tokens of each record, prompt and answer together.

    Only the prompt counts if a record has no SQL, or SQL with the text of a special token, which cannot be encoded.

    Raises:
        ConfigError: the tokenizer or the template cannot be used.
    """
    bound = formatter.bind(tokenizer)
    refused = {place for place, _ in tokens_in_answers(records, tokenizer)}
    whole = [record.sql is not None and place not in refused for place, record in enumerate(records)]
    encoded = bound.encode_all([record for record, is_whole in zip(records, whole, strict=True) if is_whole], tokenizer)
    lengths = iter(encoded.lengths)
    return [
        next(lengths) if is_whole else _prompt_length(record, bound, tokenizer)
        for record, is_whole in zip(records, whole, strict=True)
    ]


def special_tokens_in_gold(checked: Checked) -> Iterator[Finding]:
    """Find gold queries with the text of a special token."""
    if checked.tokenizer is not None:
        for place, token in tokens_in_answers(checked.records, checked.tokenizer):
            yield Finding("special-token", (place,), token)


CHECKS: tuple[Check, ...] = (special_tokens_in_gold,)


def _prompt_length(record: Record, formatter: PromptFormatter, tokenizer: Tokenizer) -> int:
    text = formatter.prompt(record, tokenizer)
    return len(tokenizer(text, add_special_tokens=formatter.add_special_tokens)["input_ids"])
