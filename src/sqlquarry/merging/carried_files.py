"""Collect the small files of the merged model: those of the base, with the adapter's tokenizer if it has its own."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.errors import MergeError, UnsupportedModelError
from sqlquarry.files.metadata import JsonObject, parse_object, read_bytes
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.special_ids import id_changes, token_ids
from sqlquarry.tokenizing.tokenizer_files import TOKENIZER_FILES, TokenizerFiles, is_tokenizer_file

# Files that a server reads in addition to the weights, and the license texts that must accompany the weights.
_CARRIED = ("config.json", "generation_config.json", *TOKENIZER_FILES, "*processor_config.json", "LICENSE*", "NOTICE*")
_MALFORMED = (OSError, AttributeError, LookupError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class CarriedFiles:
    """The small files of a merged model.

    Args:
        base: the base model.
        own: name -> path of the files of the adapter's tokenizer. They replace all files of the base's tokenizer. If
            there are none, the base's stay.
    """

    base: Storage
    own: Mapping[str, Path]

    def names(self) -> Sequence[str]:
        """Return the names of the files to write."""
        carried = {name for name in self.base.sizes() if any(fnmatch.fnmatch(name, one) for one in _CARRIED)}
        return sorted({name for name in carried if not (self.own and is_tokenizer_file(name))} | self.own.keys())

    def read(self, name: str) -> bytes:
        """Read one of the files.

        Raises:
            OSError, MergeError, MetadataError: the file cannot be read.
        """
        return read_bytes(self.own[name]) if name in self.own else self.base.read(name)

    def tokenizer(self) -> FileTokenizer:
        """Return the tokenizer as used in training.

        Raises:
            MissingExtraError: the package `tokenizers` is not installed.
            UnsupportedModelError: tokenizer.json is missing, or a file cannot be read.
        """
        try:
            files = self.tokenizer_files()
            reading, separate = trained_reading(files), "chat_template.jinja" in self.names()
            template = self.read("chat_template.jinja").decode() if separate else None
        except _MALFORMED as error:
            raise self._unreadable(error) from error
        if not files.tokenizer:
            raise UnsupportedModelError(f"{self.base} has no tokenizer.json. Save the base with a fast tokenizer.")
        return FileTokenizer(reading, files.config, template)

    def tokenizer_files(self) -> TokenizerFiles:
        """Read the files that define the tokenizer.

        Raises:
            OSError, ValueError: a file cannot be read.
        """
        names = self.names()
        return TokenizerFiles.read(lambda name: self.read(name) if name in names else None, names)

    def require_rows(self, rows: int) -> None:
        """Check that each token has a row in the embeddings.

        Raises:
            MergeError: the tokenizer has more tokens than there are rows.
            UnsupportedModelError: a file of the tokenizer cannot be read.
        """
        try:
            ids = token_ids(trained_reading(self.tokenizer_files()))
        except _MALFORMED as error:
            raise self._unreadable(error) from error
        if unknown := sorted((id_, text) for text, id_ in ids.items() if id_ >= rows):
            whose = "of the adapter" if self.own else f"in {self.base}"
            raise MergeError(
                f"the tokenizer {whose} has {unknown[-1][0] + 1} ids, but the embeddings have only "
                f"{rows} rows, so {len(unknown)} tokens such as {unknown[0][1]!r:.80} have none. Save the adapter with "
                "its resized embeddings (PEFT: save_embedding_layers=True), or with the tokenizer of the training."
            )

    def changes(self, rows: int) -> dict[str, JsonObject]:
        """Return the fields of config.json and generation_config.json that change with the tokenizer or its size.

        Args:
            rows: number of rows of the embeddings.
        """
        try:
            base = dataclasses.replace(self, own={}).tokenizer_files()
            own = self.tokenizer_files() if self.own else None
            found = {
                name: parse_object(self.read(name), name)
                for name in ("config.json", "generation_config.json")
                if name in self.names()
            }
            # The ids of a multimodal model are in parts of its config.json, and its text tokens stay the same.
            plain = {name: content for name, content in found.items() if "text_config" not in content}
            return {name: id_changes(content, rows, base, own) for name, content in plain.items()}
        except _MALFORMED as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UnsupportedModelError:
        where = next(iter(self.own.values())).parent if self.own else self.base
        return UnsupportedModelError(
            f"the tokenizer in {where} cannot be read ({error}). Save the base's tokenizer again."
        )
