"""Encode the records that a merge is measured on with the base's own tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.prompt import IGNORED_LABEL, PromptFormatter
from sqlquarry.records import Record
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

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
    def encode(cls, records: Sequence[Record], formatter: PromptFormatter, base: Storage) -> Examples:
        """Encode the first records, as many as fit into 4,096 tokens.

        Raises:
            ConfigError: there is no record, or the first record has more than 4,096 tokens.
            RecordError: a record has no SQL.
        """
        sequences: list[list[int]] = []
        states: list[int] = []
        gold: list[int] = []
        tokens = 0
        for encoded in formatter.encode_all(records, base_tokenizer(base)):
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


def base_tokenizer(storage: Storage) -> FileTokenizer:
    """Return the base's tokenizer as used in training.

    Raises:
        MissingExtraError: the package `tokenizers` is not installed.
        UnsupportedModelError: there is no tokenizer.json, or a file cannot be read.
    """
    present = storage.sizes()

    def content(name: str) -> bytes | None:
        return storage.read(name) if name in present else None

    try:
        files = TokenizerFiles.read(content, present)
        reading, separate = trained_reading(files), content("chat_template.jinja")
        template = None if separate is None else separate.decode()
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"the tokenizer in {storage} cannot be read ({error}). Save the base's tokenizer again."
        ) from error
    if not files.tokenizer:
        raise UnsupportedModelError(f"{storage} has no tokenizer.json. Save the base with a fast tokenizer.")
    return FileTokenizer(reading, files.config, template)
