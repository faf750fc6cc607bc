"""Encode and pack the records of a run, once for its plan and its training."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.errors import RecordError
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import PromptFormatter
from sqlquarry.records import Record
from sqlquarry.text import first_of
from sqlquarry.tokenizing.control_tokens import note_in_prompts
from sqlquarry.tokenizing.encoded import EncodedRecords
from sqlquarry.tokenizing.tokenizer import Tokenizer
from sqlquarry.training.base.limits import base_problems
from sqlquarry.training.base.outline import BaseOutline
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.encoding.packing import PackedRow, one_row, pack
from sqlquarry.training.encoding.whole_text import count_wrapped, encode_whole, wrap


@dataclass(frozen=True, slots=True)
class PreparedRecords:
    """Encoded records and their packed rows.

    Args:
        examples: all records, in their order.
        rows: rows of all records that can be learned from.
        over_length: (name, tokens) of records longer than a row, longest first. `check_run` refuses them.
        unlearnable: names of records without any answer token. `check_run` refuses them.
        tokens_unshared: tokens of the packed records, with shared beginnings counted once per record.
        base_problems: reasons why the base cannot learn from the records. `check_run` refuses them.
        note: a note on special tokens in questions and schemas, or "" if there are none.
        cut: number of records that TRL's packing cuts (`TrainingConfig.cuts_records`).
    """

    examples: EncodedRecords
    rows: list[PackedRow]
    over_length: tuple[tuple[str, int], ...]
    unlearnable: tuple[str, ...]
    tokens_unshared: int
    base_problems: tuple[str, ...] = ()
    note: str = ""
    cut: int = 0

    @property
    def digest(self) -> str:
        """SHA-256 (hex) over the token ids and labels of all records."""
        # Equals the digest of one JSON list, but does not build that list, which would take 126 bytes per token.
        digest = hashlib.sha256()
        for index, example in enumerate(self.examples):
            digest.update(("[" if index == 0 else ", ").encode() + json.dumps(example).encode())
        digest.update(b"]")
        return digest.hexdigest()


def prepare(
    records: Sequence[Record],
    formatter: PromptFormatter,
    tokenizer: Tokenizer,
    config: TrainingConfig,
    *,
    shape: ModelShape,
    kind: str = "",
) -> PreparedRecords:
    """Encode records and pack those that fit a row.

    Args:
        records: records with SQL.
        formatter: the prompt.
        tokenizer: the base's tokenizer.
        config: `max_length`, `share_prefixes` and `seed` are used.
        shape: the base's sizes.
        kind: purpose of the records ("evaluation") for messages, or "" for training.

    Raises:
        RecordError: there are no records, or some have no SQL.
        ConfigError: prompt and tokenizer do not fit (see `PromptFormatter.bind`).
    """
    names = [f"{kind} {record.id or f'record {index}'}".strip() for index, record in enumerate(records)]
    examples = _encoded(records, names, formatter, tokenizer, kind, whole=config.learns_whole_text)
    limit = math.inf if config.cuts_records else config.max_length
    lengths = examples.lengths
    unlearnable = [prompt == tokens for prompt, tokens in zip(examples.prompt_lengths, lengths, strict=True)]
    fine = [index for index, tokens in enumerate(lengths) if tokens <= limit and not unlearnable[index]]
    learned = examples.select(fine)
    rows, cut = _packed(learned, [records[index].schema for index in fine], config)
    note = note_in_prompts(records, tokenizer) or ""
    problems = base_problems(records, examples, shape, tokenizer)
    over = [(name, tokens) for name, tokens in zip(names, lengths, strict=True) if tokens > limit]
    return PreparedRecords(
        examples,
        rows,
        over_length=tuple(sorted(over, key=lambda item: -item[1])),
        unlearnable=tuple(name for name, empty in zip(names, unlearnable, strict=True) if empty),
        tokens_unshared=sum(lengths[index] for index in fine),
        base_problems=tuple(f"{kind}: {problem}" if kind else problem for problem in problems),
        note=f"{kind}: {note}" if kind and note else note,
        cut=cut,
    )


def _packed(examples: EncodedRecords, schemas: Sequence[str], config: TrainingConfig) -> tuple[list[PackedRow], int]:
    """Return the rows and the number of records that are cut.

    TRL packs by itself, and its rows are about the same. It shares no prefixes.
    """
    limit, seed = config.max_length, config.seed
    if config.backend == "sqlquarry":
        return pack(examples, schemas, max_tokens=limit, share_prefixes=config.share_prefixes, seed=seed), 0
    if config.packing_strategy is None:
        return [one_row(example) for example in examples], 0
    if config.packing_strategy == "wrapped":
        return wrap(examples, limit), count_wrapped(examples, limit)
    pieces = examples.split(limit)
    cut = sum(tokens > limit for tokens in examples.lengths)
    return pack(pieces, [""] * len(pieces), max_tokens=limit, share_prefixes=False, seed=seed), cut


def _encoded(
    records: Sequence[Record],
    names: Sequence[str],
    formatter: PromptFormatter,
    tokenizer: Tokenizer,
    kind: str,
    *,
    whole: bool,
) -> EncodedRecords:
    label = f"{kind} record".strip()
    if not records:
        raise RecordError(f"there are no {label}s. Training needs at least one with sql.")
    if without := [name for name, record in zip(names, records, strict=True) if record.sql is None]:
        raise RecordError(
            f"{len(without)} of {len(records)} {label}s have no sql to learn: {first_of(without, 5)}. "
            "Add their SQL, or leave them out."
        )
    with phase(f"encoding {len(records):,} {label}s"):
        try:
            return encode_whole(records, formatter, tokenizer) if whole else formatter.encode_all(records, tokenizer)
        except RecordError as error:
            raise RecordError(f"{kind}: {error}" if kind else str(error)) from error


def prepare_both(
    records: Sequence[Record],
    evaluation: Sequence[Record] | None,
    formatter: PromptFormatter,
    outline: BaseOutline,
    config: TrainingConfig,
) -> tuple[PreparedRecords, PreparedRecords | None]:
    """Prepare the records of a run and its evaluation records, if it has any.

    Raises:
        RecordError, ConfigError: as `prepare`.
    """
    tokenizer, shape = outline.tokenizer, outline.shape
    prepared = prepare(records, formatter, tokenizer, config, shape=shape)
    if not evaluation:
        return prepared, None
    return prepared, prepare(evaluation, formatter, tokenizer, config, shape=shape, kind="evaluation")
