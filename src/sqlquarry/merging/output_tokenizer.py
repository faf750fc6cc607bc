"""Change the tokenizer's files in a merge's output, if the prompt requires it."""

from __future__ import annotations

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import json_bytes
from sqlquarry.merging.storage.protocols import Storage
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.special_token_removal import files_without_special_tokens
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles


def changed_tokenizer(storage: Storage, formatter: PromptFormatter) -> dict[str, bytes]:
    """Return name -> content of the tokenizer files that must differ from those in `storage`.

    A prompt with ``add_special_tokens=False`` needs a tokenizer that adds none. Otherwise nothing changes.

    Raises:
        UnsupportedModelError: a file cannot be read, or the tokenizer cannot be changed.
    """
    if formatter.add_special_tokens:
        return {}
    present = storage.sizes()
    try:
        files = TokenizerFiles.read(lambda name: storage.read(name) if name in present else None, present)
        changed = files_without_special_tokens(files)
    except UnsupportedModelError:
        raise
    except (OSError, AttributeError, LookupError, TypeError, ValueError) as error:
        raise UnsupportedModelError(
            f"the tokenizer in {storage} cannot be read ({error}). Save the base's tokenizer again."
        ) from error
    pairs = {
        "tokenizer.json": (files.tokenizer, changed.tokenizer),
        "tokenizer_config.json": (files.config, changed.config),
    }
    return {name: json_bytes(new) for name, (old, new) in pairs.items() if new != old}
