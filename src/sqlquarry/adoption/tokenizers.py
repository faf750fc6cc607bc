"""Read the tokenizers of an adapter and its base, and compare them."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.adoption.adapter_files import AdapterFiles
from sqlquarry.adoption.base import AdapterBase
from sqlquarry.adoption.source import TOKENIZER_FILES
from sqlquarry.errors import AdoptionError, ConfigError, UnsupportedModelError
from sqlquarry.files.metadata import JsonObject, read_bytes
from sqlquarry.prompt import PromptFormatter
from sqlquarry.text import first_of, visible_logger
from sqlquarry.tokenizing.control_tokens import ending_token
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.reading_equality import Reading, same_tokens
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.special_ids import token_ids
from sqlquarry.tokenizing.special_token_removal import files_without_special_tokens
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

logger = visible_logger(__name__)
_CHAT = "sq.PromptFormatter(template='chat')"
_OWN = "sq.PromptFormatter(system=…, user=…, template='chat' or a Jinja string)"


@dataclass(frozen=True, slots=True)
class ReadTokenizer:
    """A tokenizer, as transformers 5 reads it in training.

    Args:
        place: its location, for messages.
        files: the files that define it.
        reading: the content of tokenizer.json, completed from the other files.
        tokenizer: the tokenizer.
    """

    place: str
    files: TokenizerFiles
    reading: Reading
    tokenizer: FileTokenizer

    @classmethod
    def read(
        cls, place: str, content: Callable[[str], bytes | None], names: Iterable[str], model: JsonObject
    ) -> ReadTokenizer:
        """Read a tokenizer.

        Args:
            place: its location, for messages.
            content: returns the content of a file, or None if it does not exist.
            names: the names of all files.
            model: config.json of the base.

        Raises:
            AdoptionError: tokenizer.json is missing, or a file cannot be read.
        """
        try:
            files = dataclasses.replace(TokenizerFiles.read(content, names), model=model)
            if not files.tokenizer:
                raise UnsupportedModelError("tokenizer.json is missing")  # noqa: TRY301 - handled like the others
            reading, separate = trained_reading(files), content("chat_template.jinja")
            template = None if separate is None else separate.decode()
            tokenizer = FileTokenizer(reading, files.config, template)
        except (UnsupportedModelError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise AdoptionError(
                f"the tokenizer in {place} cannot be read ({error}). Save it again as a fast tokenizer, with "
                "tokenizer.save_pretrained."
            ) from error
        return cls(place, files, reading, tokenizer)

    @property
    def ids(self) -> int:
        """The number of rows that an embedding needs: the largest token id, plus one."""
        return max(token_ids(self.reading).values(), default=-1) + 1

    def equals(self, other: ReadTokenizer) -> bool:
        """Return whether both give the same tokens for every text and have the same template, BOS and EOS."""
        names = ("bos_token", "eos_token", "chat_template")
        same = all(getattr(self.tokenizer, name) == getattr(other.tokenizer, name) for name in names)
        return same and same_tokens(self.reading, other.reading)

    def bind(self, formatter: PromptFormatter) -> PromptFormatter:
        """Bind a formatter, unless it is bound already, and check that it fits this tokenizer.

        Raises:
            ConfigError: the formatter does not fit the tokenizer.
            UnsupportedModelError: the prompt excludes special tokens, but the tokenizer always adds some.
        """
        bound = formatter.bind(self.tokenizer)
        tokens = bound.tokens
        assert tokens is not None  # noqa: S101 - it is bound
        if not formatter.add_special_tokens:
            files_without_special_tokens(self.files)  # a merge changes them like this
        special = {
            str(token["content"]): int(token["id"])
            for token in self.reading.get("added_tokens") or ()
            if token.get("special")
        }
        ids = self.tokenizer("a", add_special_tokens=formatter.add_special_tokens)["input_ids"]
        adds_bos = self.tokenizer.bos_token is not None and ids[0] == self.tokenizer.bos_token_id
        problems = {
            f"ends an answer with {tokens.stop!r:.80}": ending_token(tokens.stop, special) is None,
            f"has the EOS {tokens.eos!r:.80}": tokens.eos not in special,
            f"has the BOS {tokens.bos!r:.80}": bool(tokens.bos) and tokens.bos not in special,
        }
        wrong = [problem for problem, found in problems.items() if found]
        if wrong or tokens.adds_bos != adds_bos:
            reason = f"{wrong[0]}, which is not a special token" if wrong else "treats BOS differently"
            raise ConfigError(
                f"the formatter does not fit the tokenizer in {self.place}: it {reason} (special tokens: "
                f"{first_of(list(special), 5) or 'none'}). Pass a formatter that is not bound, with the prompt of the "
                "training."
            )
        return bound


@dataclass(frozen=True, slots=True)
class AdapterTokenizers:
    """The tokenizer of an adapter, if it has one, and that of its base.

    Args:
        directory: the directory of the adapter.
        own: the adapter's tokenizer, or None.
        of_base: the base's tokenizer.
        differ: whether the adapter's tokenizer gives other tokens than the base's, or has another template, BOS or EOS.
    """

    directory: Path
    own: ReadTokenizer | None
    of_base: ReadTokenizer
    differ: bool

    @classmethod
    def read(cls, files: AdapterFiles, base: AdapterBase) -> AdapterTokenizers:
        """Read both tokenizers.

        Raises:
            AdoptionError: a tokenizer cannot be read.
        """
        model, storage = base.checkpoint.config, base.checkpoint.storage
        present = storage.sizes()

        def of_adapter(name: str) -> bytes | None:
            path = files.directory / name
            return read_bytes(path) if path.is_file() else None

        def of_base(name: str) -> bytes | None:
            return storage.read(name) if name in present else None

        names = [path.name for path in files.directory.iterdir()]
        own = ReadTokenizer.read(str(files.directory), of_adapter, names, model) if files.has_tokenizer else None
        base_tokenizer = ReadTokenizer.read(base.path, of_base, present, model)
        return cls(files.directory, own, base_tokenizer, own is not None and not own.equals(base_tokenizer))

    @property
    def origin(self) -> str:
        """Which tokenizer the merged model gets, in words."""
        if self.own is None:
            return "the base's, because the adapter has none"
        return "the adapter's own" if self.differ else "the base's, which gives the same tokens as the adapter's"

    def bind(self, formatter: PromptFormatter | None) -> PromptFormatter:
        """Bind the formatter that the caller gave to the adapter's tokenizer, or to the base's if it has none.

        Raises:
            ConfigError: the formatter is missing, or does not fit the tokenizer. The message shows the constructor
                calls to choose from.
        """
        if isinstance(formatter, PromptFormatter):
            return (self.own or self.of_base).bind(formatter)
        if formatter is not None:
            raise ConfigError(f"formatter is {formatter!r:.80}, but must be a PromptFormatter, such as {_CHAT}.")
        places = [one.place for one in (self.own, self.of_base) if one and one.tokenizer.chat_template is not None]
        found = (
            f"There is a chat template in {places[0]}. formatter={_CHAT} uses it"
            if places
            else "Neither the adapter nor its base has a chat template"
        )
        raise ConfigError(
            "an adapter answers well only with the prompt that it was trained with, and its files do not say which "
            f"that was. {found}. With other wording, pass formatter={_OWN}. This library's default prompt is "
            "sq.PromptFormatter(), and the published recipe's is sq.PromptFormatter.published()."
        )

    def require_rows(self, rows: int, stored: int) -> None:
        """Check that every token has a row in the embedding.

        Args:
            rows: number of rows with the adapter.
            stored: number of rows of the base.

        Raises:
            AdoptionError: the vocabulary is cut.
        """
        used = self.own if self.own and self.differ else self.of_base
        if used.ids > rows:
            raise AdoptionError(
                f"the tokenizer in {used.place} has token ids up to {used.ids - 1:,}, but the embedding has only "
                f"{rows:,} rows. The vocabulary was resized for training, and the adapter was saved without the new "
                "rows. Save it again with save_embedding_layers=True."
            )
        if self.own is None and rows != stored:
            logger.warning(
                "The adapter has an embedding of %d rows instead of %d, but no tokenizer. If tokens were added for "
                "training, put the tokenizer's files beside the adapter.",
                rows,
                stored,
            )

    def copy_to(self, directory: Path) -> None:
        """Copy the files of the adapter's tokenizer, if it differs from the base's."""
        for name in TOKENIZER_FILES if self.differ else ():
            if (self.directory / name).is_file():
                shutil.copyfile(self.directory / name, directory / name)
