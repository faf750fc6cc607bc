"""Change a model's tokenizer files so that the tokenizer adds no special tokens around a text.

A server tokenizes a prompt with the model's own tokenizer. If the model was trained without the tokenizer's BOS
(`PromptFormatter(add_special_tokens=False)`), the served tokenizer must not add it either.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.tokenizing.added_tokens import Declared
from sqlquarry.tokenizing.reading_equality import Reading, same_tokens, special_ids
from sqlquarry.tokenizing.readings import BOS_BY_OPTION, served_reading, trained_reading
from sqlquarry.tokenizing.tokenizer_files import TokenizerFiles

_ADDING = ("BertProcessing", "RobertaProcessing")


def adds_special_tokens(files: TokenizerFiles) -> bool:
    """Return whether a model's tokenizer adds tokens around a text, in transformers 5 or in 4.51.3."""
    readings = [trained_reading(files)]
    with contextlib.suppress(UnsupportedModelError):  # an export repairs files that 4.51.3 cannot load
        readings.append(served_reading(files))
    return any(any(special_ids(reading)) for reading in readings)


def without_special_tokens(reading: Reading) -> Reading:
    """Return a reading, or the content of a tokenizer.json, with a post-processor that adds no tokens.

    All other parts are kept, so each text gets the ids that it has with ``add_special_tokens=False``.
    """
    return {**reading, "post_processor": _without(reading.get("post_processor"))}


def _without(post: JsonObject | None) -> JsonObject | None:
    if post is None or post.get("type") in _ADDING:
        return None
    if post.get("type") == "Sequence":
        kept = [step for step in map(_without, post.get("processors") or ()) if step is not None]
        return {**post, "processors": kept} if kept else None
    if post.get("type") == "TemplateProcessing":
        texts = {key: [piece for piece in post.get(key) or () if "Sequence" in piece] for key in ("single", "pair")}
        return {**post, **texts, "special_tokens": {}}
    return post


def files_without_special_tokens(files: TokenizerFiles) -> TokenizerFiles:
    """Change tokenizer.json and tokenizer_config.json so that the tokenizer adds no special tokens.

    If it adds none already, `files` is returned unchanged. Otherwise each text gets the ids that transformers 5 gives
    it with ``add_special_tokens=False``.

    Raises:
        UnsupportedModelError: tokenizer.json is missing, or the changed files would still add tokens.
    """
    if not files.tokenizer:
        raise UnsupportedModelError(
            "the prompt has add_special_tokens=False, but the model has no tokenizer.json that could be changed to add "
            "none. Save the base with a fast tokenizer, or train with add_special_tokens=True."
        )
    if not adds_special_tokens(files):
        return files
    wanted = without_special_tokens(trained_reading(files))
    for changed in _changed(files):
        if same_tokens(trained_reading(changed), wanted):
            return changed
    raise UnsupportedModelError(
        f"the prompt has add_special_tokens=False, but a {files.class_name or 'tokenizer of this kind'} adds special "
        "tokens whatever its files contain. Save the tokenizer as PreTrainedTokenizerFast, or train with "
        "add_special_tokens=True."
    )


def _changed(files: TokenizerFiles) -> Iterator[TokenizerFiles]:
    # 4.51.3 applies these options to some classes even if they are absent. Other versions apply them to more classes.
    rebuilt = files.class_name in BOS_BY_OPTION
    options = [key for key in ("add_bos_token", "add_eos_token") if rebuilt or key in files.config]
    config = files.config | dict.fromkeys(options, False)
    changed = replace(files, tokenizer=dict(without_special_tokens(files.tokenizer)), config=config)
    yield changed
    if files.class_name == "CodeLlamaTokenizer":
        # In transformers 5 this class adds BOS whatever the files contain. LlamaTokenizer splits text in the same way.
        named = Declared.of(files, files.class_name, version=5).by_name
        yield replace(changed, config={**named, **config, "tokenizer_class": "LlamaTokenizer", "legacy": False})
