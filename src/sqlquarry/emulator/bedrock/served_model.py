"""Load an imported model with the tokenizer that Bedrock would use.

Prompts become the ids that transformers 4.51.3 makes of them, not those of the installed version.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.tokenizing.file_tokenizer import FileTokenizer
from sqlquarry.tokenizing.readings import named_tokens, served_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

    from sqlquarry.models.local.model import LocalModel

_LARGEST_BATCH = 1024  # the engine decides how many prompts come together


def load_served_model(directory: Path) -> LocalModel:
    """Load the model in a directory.

    Raises:
        UnsupportedModelError: transformers 4.51.3 cannot load its tokenizer.
    """
    from sqlquarry.models.local.model import LocalModel

    model = LocalModel(directory, batch_size=_LARGEST_BATCH)
    model.tokenizer = served_tokenizer(directory)
    return model


def served_tokenizer(directory: Path) -> PreTrainedTokenizerFast:
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
