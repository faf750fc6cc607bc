"""Encode the records that a merge is measured on with the model's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.errors import ConfigError
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.encoded import IGNORED_LABEL
from sqlquarry.tokenizing.tokenizer import Tokenizer

_MAX_TOKENS = 4096  # with this many tokens, the widest activations of an 8B model take 0.5 GB


@dataclass(frozen=True, slots=True)
class Examples:
    """Prompts with their answers as tokens.

    Args:
        sequences: the token ids of each prompt with its answer.
        states: positions in the concatenated sequences whose next token is part of an answer.
        gold: the next token of each of these positions.
    """

    sequences: Sequence[Sequence[int]]
    states: Sequence[int]
    gold: Sequence[int]

    @classmethod
    def encode(cls, records: Sequence[Record], formatter: PromptFormatter, tokenizer: Tokenizer) -> Examples:
        """Encode the first records, as many as fit into 4,096 tokens.

        Raises:
            ConfigError: there is no record, or the first record has more than 4,096 tokens.
            RecordError: a record has no SQL.
        """
        sequences: list[list[int]] = []
        states: list[int] = []
        gold: list[int] = []
        tokens = 0
        for encoded in formatter.encode_all(records, tokenizer):
            if tokens + len(encoded.input_ids) > _MAX_TOKENS:
                break
            answer = [place for place, label in enumerate(encoded.labels) if place and label != IGNORED_LABEL]
            states += [tokens + place - 1 for place in answer]
            gold += [encoded.labels[place] for place in answer]
            sequences.append(encoded.input_ids)
            tokens += len(encoded.input_ids)
        if not sequences:
            raise ConfigError(
                f"none of the {len(records)} evaluation records can be used, because the first must fit into "
                f"{_MAX_TOKENS} tokens. Give shorter records."
            )
        return cls(sequences, states, gold)
