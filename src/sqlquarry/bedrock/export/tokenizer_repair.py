"""Repair a tokenizer's files, so that transformers 4.51.3 makes the token ids that the model was trained with."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from sqlquarry.errors import UnsupportedModelError
from sqlquarry.files.metadata import JsonObject
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.added_tokens import NAMED_TOKENS, is_untyped, token_text
from sqlquarry.tokenizing.reading_equality import Reading, same_tokens, special_ids
from sqlquarry.tokenizing.readings import BOS_BY_OPTION, converts_sentencepiece, served_reading, trained_reading
from sqlquarry.tokenizing.special_token_removal import without_special_tokens
from sqlquarry.tokenizing.tokenizer_files import SENTENCEPIECE_FILES, TokenizerFiles

# Keys in which transformers 5 records how the tokenizer was loaded.
LOADING_KEYS = ("backend", "is_local", "local_files_only")
_OPTIONS = ("add_bos_token", "add_eos_token")


def saved_by_5(files: TokenizerFiles) -> bool:
    """Return whether transformers 5 saved the model. Its training then read the tokenizer as that version does."""
    major = str(files.model.get("transformers_version", "")).partition(".")[0]
    newer = major.isdigit() and int(major) >= 5
    return newer or not files.model.keys().isdisjoint(("dtype", "rope_parameters")) or loaded_by_5(files.config)


def loaded_by_5(tokenizer_config: JsonObject) -> bool:
    """Return whether transformers 5 wrote a tokenizer_config.json."""
    return not tokenizer_config.keys().isdisjoint(LOADING_KEYS)


def wanted_reading(files: TokenizerFiles, *, by_5: bool) -> Reading:
    """Return the reading of the tokenizer that the model was trained with.

    For models from this library or from transformers 5, this is the reading of transformers 5. An older checkpoint was
    trained with an older version, which is assumed to read the files like 4.51.3 unless 4.51.3 cannot load them.

    Args:
        files: the checkpoint's own files.
        by_5: whether transformers 5 read them for the training.
    """
    if not by_5:
        try:
            return served_reading(files)
        except UnsupportedModelError:
            pass
    return trained_reading(files)


def prompted_reading(reading: Reading, formatter: PromptFormatter | None) -> Reading:
    """Return the reading that the training with a prompt used, which may add no special tokens."""
    return reading if formatter is None or formatter.add_special_tokens else without_special_tokens(reading)


def repaired(files: TokenizerFiles, wanted: Reading, *, by_5: bool) -> TokenizerFiles:
    """Change tokenizer.json and tokenizer_config.json, if necessary, until 4.51.3 makes the wanted ids.

    If `by_5`, a result that transformers 5 reads in the same way is preferred, so that local answers equal the
    server's. If no change helps, the files are returned unchanged.

    Args:
        files: the files in the export dialect.
        wanted: the result of `wanted_reading`, and of `prompted_reading` if the prompt is known.
        by_5: as in `wanted_reading`.
    """
    found = (one for one in (files, *_candidates(files, wanted)) if _is_served_as(one, wanted))
    first = next(found, files)
    if not by_5:
        return first
    return next((one for one in (first, *found) if same_tokens(trained_reading(one), wanted)), first)


def _is_served_as(files: TokenizerFiles, wanted: Reading) -> bool:
    if converts_sentencepiece(files):
        return False  # the SentencePiece vocabulary may differ from the one in tokenizer.json
    try:
        return same_tokens(served_reading(files), wanted)
    except UnsupportedModelError:
        return False


def _candidates(files: TokenizerFiles, wanted: Reading) -> Iterator[TokenizerFiles]:
    """Yield changed options, then also a changed tokenizer.json, first for the same class, then for a generic one."""
    flags = ("content", "lstrip", "normalized", "rstrip", "single_word", "special")
    converting = ("from_slow", "add_prefix_space") if files.class_name in SENTENCEPIECE_FILES else ("from_slow",)
    config: JsonObject = {key: value for key, value in files.config.items() if key not in converting}
    config |= {key: token_text(config[key]) for key in NAMED_TOKENS if is_untyped(config.get(key))}
    # Keep only texts here, because flags would override those in tokenizer.json. `added_tokens_decoder` has the flags.
    if isinstance(more := config.get("additional_special_tokens"), list):
        special = {token["content"] for token in wanted["added_tokens"] if token["special"]}
        config["additional_special_tokens"] = [text for text in map(token_text, more) if text in special]
    pre_tokenizer = wanted.get("pre_tokenizer") or {}
    space = {key: pre_tokenizer[key] for key in ("add_prefix_space",) if key in pre_tokenizer}
    same = config if files.class_name in SENTENCEPIECE_FILES else config | space
    if files.class_name in BOS_BY_OPTION:
        front, behind = map(bool, special_ids(wanted))
        options = (("add_bos_token", front, BOS_BY_OPTION[files.class_name]), ("add_eos_token", behind, False))
        same = same | {key: adds for key, adds, default in options if same.get(key, default) != adds}
    literal = {key: value for key, value in config.items() if key not in _OPTIONS} | space
    literal["tokenizer_class"] = "PreTrainedTokenizerFast"
    decoder = {str(token["id"]): {flag: token[flag] for flag in flags} for token in wanted["added_tokens"]}
    for new in (same, literal):
        yield replace(files, config=new)
        # special_tokens_map.json adds these to a configuration without `added_tokens_decoder`.
        known = {} if "added_tokens_decoder" in new else files.special
        named = {key: text for key in NAMED_TOKENS if (text := token_text(known.get(key)))}
        yield replace(files, tokenizer=dict(wanted), config={**new, **named, "added_tokens_decoder": decoder})
