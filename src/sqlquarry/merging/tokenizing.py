"""The base's tokenizer from its own files, called as `PromptFormatter` calls transformers' tokenizers."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from sqlquarry.errors import MissingExtraError, UnsupportedModelError
from sqlquarry.merging.storage import Storage
from sqlquarry.metadata import parse_object


class FileTokenizer:
    """tokenizer.json with the special tokens that its post-processor adds, and the names in tokenizer_config.json.

    Raises:
        MissingExtraError: the package `tokenizers` is not installed.
        UnsupportedModelError: there is no tokenizer.json, or a file cannot be read.
    """

    def __init__(self, storage: Storage) -> None:
        if find_spec("tokenizers") is None:
            raise MissingExtraError(
                "measuring a merge needs tokenizers, which is not installed. Run: pip install 'sqlquarry[merge]'",
                name="tokenizers",
            )
        from tokenizers import Tokenizer

        present = storage.sizes()
        try:
            self._tokenizer: Any = Tokenizer.from_str(storage.read("tokenizer.json").decode())
        except Exception as error:  # the file's absence, or whatever the Rust side finds wrong with it
            raise UnsupportedModelError(
                f"{storage}/tokenizer.json cannot be read ({error}). Save the base with a fast tokenizer."
            ) from error
        # What a training batch would set, and a saved file keeps.
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        name, template = "tokenizer_config.json", "chat_template.jinja"
        try:
            config = parse_object(storage.read(name), name) if name in present else {}
            separate = storage.read(template).decode() if template in present else None
        except (OSError, ValueError) as error:
            raise UnsupportedModelError(f"{storage}: {error}. Save the base's tokenizer again.") from error
        self.bos_token, self.eos_token = _text(config.get("bos_token")), _text(config.get("eos_token"))
        self.bos_token_id, self.eos_token_id = self._id(self.bos_token), self._id(self.eos_token)
        self.chat_template = config.get("chat_template") if separate is None else separate

    def _id(self, token: str | None) -> int | None:
        found: int | None = None if token is None else self._tokenizer.token_to_id(token)
        return found

    def __call__(self, text: str | Sequence[str], *, add_special_tokens: bool = True) -> dict[str, Any]:
        """Token ids of one text, or of each of several, under "input_ids"."""
        if isinstance(text, str):
            return {"input_ids": self._tokenizer.encode(text, add_special_tokens=add_special_tokens).ids}
        encoded = self._tokenizer.encode_batch(list(text), add_special_tokens=add_special_tokens)
        return {"input_ids": [one.ids for one in encoded]}


def _text(token: Any) -> str | None:
    # Older files hold an AddedToken's fields in the place of its text.
    content = token.get("content") if isinstance(token, dict) else token
    return content if isinstance(content, str) else None
