"""Define the interface of a tokenizer that this library needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, overload


class Tokenizer(Protocol):
    """A tokenizer of transformers, or one with the same interface, such as `FileTokenizer`."""

    bos_token: str | None
    eos_token: str | None
    bos_token_id: int | None
    eos_token_id: int | None
    chat_template: object  # one template as text, or several templates by name

    @overload
    def __call__(self, text: str, *, add_special_tokens: bool = True) -> Mapping[str, list[int]]: ...  # type: ignore[overload-overlap] # text is a sequence
    @overload
    def __call__(self, text: Sequence[str], *, add_special_tokens: bool = True) -> Mapping[str, list[list[int]]]: ...
