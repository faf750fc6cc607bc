"""Change the tokenizer's files in a merge's output, if the prompt requires it."""

from __future__ import annotations

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import json_bytes
from sqlquarry.merging.carried_files import CarriedFiles
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.special_token_removal import files_without_special_tokens


def changed_tokenizer(files: CarriedFiles, formatter: PromptFormatter) -> dict[str, bytes]:
    """Return name -> content of the tokenizer files that must differ from those in `files`.

    A prompt with ``add_special_tokens=False`` needs a tokenizer that adds none. Otherwise nothing changes.

    Raises:
        UnsupportedModelError: a file cannot be read, or the tokenizer cannot be changed.
    """
    if formatter.add_special_tokens:
        return {}
    try:
        before = files.tokenizer_files()
        after = files_without_special_tokens(before)
    except UnsupportedModelError:
        raise
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"the tokenizer for {files.base} cannot be read ({error}). Save the tokenizer again."
        ) from error
    pairs = {
        "tokenizer.json": (before.tokenizer, after.tokenizer),
        "tokenizer_config.json": (before.config, after.config),
    }
    return {name: json_bytes(new) for name, (old, new) in pairs.items() if new != old}
