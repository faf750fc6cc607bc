"""The tokenizer of an imported model: the ids that transformers 4.51.3 makes, not those of the installed version."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import named_tokens, served_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles


def served_tokenizer(directory: Path) -> Any:
    """Return transformers' tokenizer around what 4.51.3 reads from the files.

    Raises:
        UnsupportedModelError: 4.51.3 cannot load it.
    """
    from transformers import PreTrainedTokenizerFast

    files = TokenizerFiles.in_directory(directory)
    backend = FileTokenizer(served_reading(files), files.config).backend
    named = {key: text for key, text in named_tokens(files).items() if backend.token_to_id(text) is not None}
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        chat_template=files.config.get("chat_template"),
        split_special_tokens=backend.encode_special_tokens,
        **named,
    )
