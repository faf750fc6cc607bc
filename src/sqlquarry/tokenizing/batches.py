"""Encode many texts with a tokenizer as fast as possible: equal texts once, and without the positions of tokens."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from sqlquarry.tokenizing.tokenizer import Tokenizer

if TYPE_CHECKING:
    import tokenizers

BATCH = 4096  # texts. With more, the results of the Rust code take much memory at a time.
_CALLS = ("__call__", "_encode_plus")  # what transformers runs to encode a text
_GENERAL = "transformers.tokenization_"  # modules of transformers that are not about one model


class BatchEncoder:
    """Encode batches of texts with the same ids as `tokenizer`.

    Attributes:
        backend: the Rust tokenizer that does the work, or None if `tokenizer` may change texts or ids itself.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer("a")  # transformers sets the backend's options (truncation, padding, special tokens) in each call
        self._tokenizer = tokenizer
        self.backend = _plain_backend(tokenizer)

    def ids(self, texts: Iterable[str], *, add_special_tokens: bool) -> list[array[int]]:
        """Return the ids of each text."""
        texts = list(texts)
        distinct = list(dict.fromkeys(texts))
        if not distinct:
            return []  # tokenizers refuse an empty batch
        if self.backend is None:
            found: Iterable[list[int]] = self._tokenizer(distinct, add_special_tokens=add_special_tokens)["input_ids"]
        else:
            batch = self.backend.encode_batch_fast(distinct, add_special_tokens=add_special_tokens)
            found = (one.ids for one in batch)
        by_text = dict(zip(distinct, (array("i", ids) for ids in found), strict=True))
        return [by_text[text] for text in texts]


def _plain_backend(tokenizer: object) -> tokenizers.Tokenizer | None:
    """Return the Rust tokenizer if it alone determines the ids."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    calls = [getattr(type(tokenizer), name, None) for name in _CALLS]
    if backend is None or any(not getattr(call, "__module__", "").startswith(_GENERAL) for call in calls):
        return None
    if backend.truncation is not None or backend.padding is not None:
        return None
    return cast("tokenizers.Tokenizer", backend)
