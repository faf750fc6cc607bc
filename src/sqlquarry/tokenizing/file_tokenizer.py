"""Encode text with one reading of a model's tokenizer files (see `readings`)."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, overload

from sqlquarry.errors import MissingExtraError, UnsupportedModelError
from sqlquarry.tokenizing.added_tokens import token_text
from sqlquarry.tokenizing.reading_equality import Reading

if TYPE_CHECKING:
    from tokenizers import Tokenizer


class FileTokenizer:
    """A tokenizer for one reading of a model's files. It is called in the same way as transformers' tokenizers.

    Raises:
        MissingExtraError: the package `tokenizers` is not installed.
        UnsupportedModelError: the package cannot load the reading.
    """

    def __init__(self, reading: Reading, config: Mapping[str, object], chat_template: object = None) -> None:
        if find_spec("tokenizers") is None:
            raise MissingExtraError(
                "counting tokens needs the package tokenizers, which is not installed. Run: "
                "pip install 'sqlquarry[merge]'",
                name="tokenizers",
            )
        from tokenizers import Tokenizer

        try:
            self.backend: Tokenizer = Tokenizer.from_str(json.dumps({"version": "1.0", **reading}))
        except Exception as error:  # the Rust code raises plain Exception
            raise UnsupportedModelError(
                f"tokenizer.json cannot be read ({error}). Save the base with a fast tokenizer."
            ) from error
        self.backend.encode_special_tokens = bool(config.get("split_special_tokens", False))
        self.bos_token = token_text(config.get("bos_token")) or None
        self.eos_token = token_text(config.get("eos_token")) or None
        self.bos_token_id, self.eos_token_id = self._id(self.bos_token), self._id(self.eos_token)
        self.chat_template = config.get("chat_template") if chat_template is None else chat_template

    def _id(self, token: str | None) -> int | None:
        return None if token is None else self.backend.token_to_id(token)

    @overload
    def __call__(self, text: str, *, add_special_tokens: bool = True) -> dict[str, list[int]]: ...  # type: ignore[overload-overlap] # text is a sequence
    @overload
    def __call__(self, text: Sequence[str], *, add_special_tokens: bool = True) -> dict[str, list[list[int]]]: ...
    def __call__(self, text: str | Sequence[str], *, add_special_tokens: bool = True) -> object:
        """Return the token ids of one text, or of each of several texts, under "input_ids".

        Raises:
            UnsupportedModelError: the tokenizer has no token for a part of a text, and no token for unknown text.
        """
        try:
            if isinstance(text, str):
                return {"input_ids": self.backend.encode(text, add_special_tokens=add_special_tokens).ids}
            encoded = self.backend.encode_batch(list(text), add_special_tokens=add_special_tokens)
        except Exception as error:  # the Rust code raises plain Exception
            raise UnsupportedModelError(
                f"the tokenizer cannot encode a text ({error}). Use a tokenizer with a token for unknown text."
            ) from error
        return {"input_ids": [one.ids for one in encoded]}
