"""Load an imported model with the tokenizer that Bedrock would use.

Prompts get the token IDs of transformers 4.51.3 instead of those of the installed version.
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

_LARGEST_BATCH = 1024  # no limit in practice, because the engine limits the batch size


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
    """Return a transformers tokenizer that behaves as in transformers 4.51.3.

    Raises:
        UnsupportedModelError: transformers 4.51.3 cannot load the tokenizer.
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
