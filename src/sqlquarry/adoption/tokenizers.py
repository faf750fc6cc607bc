"""Read the tokenizers of an adapter and its base, and compare them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.adoption.adapter_files import AdapterFiles
from sqlquarry.adoption.base import AdapterBase
from sqlquarry.errors import AdoptionError, ConfigError, UnsupportedModelError
from sqlquarry.files.metadata import JsonObject, read_bytes
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.control_tokens import ending_token
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.reading_equality import Reading, same_tokens
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

_CHAT = "sq.PromptFormatter(template='chat')"
_OWN = "sq.PromptFormatter(system=…, user=…, template='chat' or a Jinja string)"


@dataclass(frozen=True, slots=True)
class ReadTokenizer:
    """A tokenizer, as transformers 5 reads it in training.

    Args:
        place: its location, for messages.
        reading: the content of tokenizer.json, completed from the other files.
        tokenizer: the tokenizer.
    """

    place: str
    reading: Reading
    tokenizer: FileTokenizer

    @classmethod
    def read(
        cls, place: str, content: Callable[[str], bytes | None], names: Iterable[str], model: JsonObject
    ) -> ReadTokenizer:
        """Read a tokenizer.

        Args:
            place: its location, for messages.
            content: returns the content of a file, or None if there is no such file.
            names: the names of all files.
            model: config.json of the base.

        Raises:
            AdoptionError: there is no tokenizer.json, or a file cannot be read.
        """
        try:
            files = dataclasses.replace(TokenizerFiles.read(content, names), model=model)
            if not files.tokenizer:
                raise UnsupportedModelError("there is no tokenizer.json")  # noqa: TRY301 - handled like the others
            reading, separate = trained_reading(files), content("chat_template.jinja")
            template = None if separate is None else separate.decode()
            tokenizer = FileTokenizer(reading, files.config, template)
        except (UnsupportedModelError, OSError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise AdoptionError(
                f"the tokenizer in {place} cannot be read ({error}). Save it again as a fast tokenizer, with "
                "tokenizer.save_pretrained."
            ) from error
        return cls(place, reading, tokenizer)

    @property
    def ids(self) -> int:
        """The number of rows that an embedding needs: the largest token id, plus one."""
        return max(self.tokenizer.backend.get_vocab(with_added_tokens=True).values(), default=-1) + 1

    def equals(self, other: ReadTokenizer) -> bool:
        """Return whether both give the same tokens for every text and have the same template, BOS and EOS."""
        names = ("bos_token", "eos_token", "chat_template")
        same = all(getattr(self.tokenizer, name) == getattr(other.tokenizer, name) for name in names)
        return same and same_tokens(self.reading, other.reading)

    def bind(self, formatter: PromptFormatter) -> PromptFormatter:
        """Bind a formatter, unless it is bound already.

        Raises:
            ConfigError: the formatter does not fit the tokenizer.
        """
        bound = formatter.bind(self.tokenizer)
        special = {
            str(token["content"]): int(token["id"])
            for token in self.reading.get("added_tokens") or ()
            if token.get("special")
        }
        stop = bound.tokens.stop if bound.tokens else ""
        if ending_token(stop, special) is None:
            raise ConfigError(
                f"the formatter ends an answer with {stop!r:.80}, which is not a special token of the tokenizer in "
                f"{self.place} ({', '.join(list(special)[:5])}, …). Use the prompt that the adapter was trained with."
            )
        return bound


def read_tokenizers(files: AdapterFiles, base: AdapterBase) -> tuple[ReadTokenizer | None, ReadTokenizer]:
    """Return the tokenizer of the adapter, or None if it has none, and that of the base.

    Raises:
        AdoptionError: a tokenizer cannot be read.
    """
    model, storage = base.checkpoint.config, base.checkpoint.storage

    def of_adapter(name: str) -> bytes | None:
        path: Path = files.directory / name
        return read_bytes(path) if path.is_file() else None

    present = storage.sizes()

    def of_base(name: str) -> bytes | None:
        return storage.read(name) if name in present else None

    names = [path.name for path in files.directory.iterdir()]
    own = ReadTokenizer.read(str(files.directory), of_adapter, names, model) if files.has_tokenizer else None
    return own, ReadTokenizer.read(base.path, of_base, present, model)


def require_formatter(
    formatter: PromptFormatter | None, own: ReadTokenizer | None, of_base: ReadTokenizer
) -> PromptFormatter:
    """Return the formatter that the caller gave.

    Raises:
        ConfigError: there is none, or it is not a formatter. The message shows the constructor calls to choose from.
    """
    if isinstance(formatter, PromptFormatter):
        return formatter
    if formatter is not None:
        raise ConfigError(f"formatter is {formatter!r:.80}, but must be a PromptFormatter, such as {_CHAT}.")
    with_template = [one.place for one in (own, of_base) if one and one.tokenizer.chat_template is not None]
    found = (
        f"there is a chat template in {with_template[0]}, which is used by formatter={_CHAT}"
        if with_template
        else "neither the adapter nor its base has a chat template"
    )
    raise ConfigError(
        "an adapter answers well only with the prompt that it was trained with, and its files do not say which that "
        f"was. Pass formatter. {found[0].upper()}{found[1:]}. With other wording, use {_OWN}, and for this library's "
        "default prompt use sq.PromptFormatter()."
    )
