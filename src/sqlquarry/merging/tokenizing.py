"""The base's tokenizer from its own files, for measuring a merge."""

from __future__ import annotations

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.merging.storage import Storage
from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles


def base_tokenizer(storage: Storage) -> FileTokenizer:
    """Read the tokenizer that training used.

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
        raise UnsupportedModelError(f"{storage}: {error}. Save the base's tokenizer again.") from error
    if not files.tokenizer:
        raise UnsupportedModelError(f"{storage} holds no tokenizer.json. Save the base with a fast tokenizer.")
    return FileTokenizer(reading, files.config, template)
