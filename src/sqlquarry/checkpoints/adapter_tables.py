"""Find the embedding and the output head in a PEFT adapter, which may have another number of rows than the base."""

from __future__ import annotations

import re
from pathlib import Path

from sqlquarry.checkpoints.safetensors_header import read_header
from sqlquarry.errors import MetadataError

PEFT_PREFIX = "base_model.model."  # PEFT's wrapper in front of every module name
# PEFT's wrappers around a module, whose own weight is frozen: LoRA and trained rows.
WRAPPERS = ("", "base_layer.", "token_adapter.base_layer.")
# Tensors with one row for each token: the embedding (Llama's and GPTBigCode's names) and the output head.
EMBEDDING = re.compile(r"(?:.*\.)?(?:embed_tokens|wte)\.weight")
TABLE = re.compile(rf"{EMBEDDING.pattern}|(?:.*\.)?lm_head\.weight")


def vocabulary_rows(file: Path) -> int | None:
    """Return the number of rows of the embedding and head in an adapter's file, or None if it contains neither.

    Raises:
        MetadataError: the file is damaged, or the two have different numbers of rows.
        OSError: the file cannot be read.
    """
    rows: dict[str, int] = {}
    for name, tensor in read_header(file).tensors.items():
        module, _, leaf = name.removeprefix(PEFT_PREFIX).rpartition(".")
        plain = f"{module.removesuffix('.base_layer').removesuffix('.token_adapter')}.{leaf}"
        if TABLE.fullmatch(plain) and tensor.shape:
            rows[plain] = tensor.shape[0]
    if len(set(rows.values())) > 1:
        raise MetadataError(f"{file.name} has tables of different lengths: {rows}")
    return next(iter(rows.values()), None)
