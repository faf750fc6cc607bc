"""Check a model made elsewhere by its small files and the headers of its weights, before any weight is read."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from pathlib import Path

from sqlquarry.bedrock.export.weights import QUANTIZED, CheckpointWeights, is_full
from sqlquarry.bedrock.preflight import tensors, tokenizer
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint, read_files, read_weights
from sqlquarry.bedrock.preflight.config import GPT_OSS, QUANTIZATION_KEYS
from sqlquarry.bedrock.preflight.findings import MALFORMED, PreflightFinding
from sqlquarry.bedrock.preflight.source import LocalSource
from sqlquarry.checkpoints.foreign_model import refuse_foreign_code
from sqlquarry.checkpoints.model_files import READ_FILES, check_model_files, pointer_problem
from sqlquarry.errors import AdoptionError

# Parts of tensor names that PEFT 0.21 writes for modules that are not merged (tuners/lora, utils/other.py).
_UNMERGED = re.compile(
    r"(^|\.)(lora_\w+|base_layer|modules_to_save|original_module|token_adapter|trainable_tokens_\w+|ia3_l|"
    r"oft_\w+|hada_\w+|lokr_\w+)(\.|$)"
)
# Wrappers whose name becomes a part of tensor names if the wrapper is saved instead of the model, with their origin.
_WRAPPERS = {
    "base_model.model.": "PEFT",
    "_orig_mod.": "torch.compile",
    "_fsdp_wrapped_module.": "FSDP",
    "_checkpoint_wrapped_module.": "activation checkpointing",
    "module.": "DistributedDataParallel or DeepSpeed",
}
# An import does not repair these findings, so they are refused before a manifest describes the files.
_CHECKS = (*tensors.CHECKS, tokenizer.vocabulary, tokenizer.special_token_lists)
_POINTER_BYTES = 64


def check_model(outline: Path) -> Checkpoint:
    """Check a model and return its small files and headers.

    Args:
        outline: a directory with the model's small files. The safetensors files may have zeros after their headers.

    Raises:
        AdoptionError: the model is damaged, incomplete, quantized or not merged.
        UnsupportedModelError: a configuration asks for custom code, or files do not match each other.
    """
    source = LocalSource(outline)
    _refuse(outline, [f"{problem}. Download the file again" for problem in _pointers(outline)])
    files, templates, findings = read_files(source)
    weights, bad_weights = read_weights(source)
    _refuse_findings(outline, [*findings, *bad_weights])
    checkpoint = Checkpoint(source.sizes, files, templates, weights)
    if weights is not None:
        _refuse_quantized(outline, checkpoint, weights)
        _refuse_unmerged(outline, weights.tensors)
    refuse_foreign_code(outline)
    _refuse_findings(outline, [*_findings(outline, checkpoint)])
    check_model_files(outline)
    return checkpoint


def _pointers(outline: Path) -> Iterator[str]:
    for path in sorted(outline.iterdir()):
        if path.is_file() and (path.name in READ_FILES or path.suffix == ".safetensors"):
            with path.open("rb") as file:
                if problem := pointer_problem(path.name, file.read(_POINTER_BYTES)):
                    yield problem


def _findings(outline: Path, checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    for check in _CHECKS:
        try:
            yield from check(checkpoint)
        except MALFORMED as problem:
            raise AdoptionError(
                f"the model in {outline} has unexpected content ({check.__name__}: {type(problem).__name__}: "
                f"{problem}). Restore the original files."
            ) from problem


def _refuse_findings(outline: Path, findings: Collection[PreflightFinding]) -> None:
    """Refuse a model with errors that an import would not repair.

    Files that are not among the shards are not adopted, and an import rewrites the lists of special tokens.
    """
    errors = [
        finding
        for finding in findings
        if finding.severity == "error" and finding.code != "stray-shard"
        if not (finding.code == "special-tokens" and finding.repairable)
    ]
    problems = [f"{finding.where}: {finding.message}. {finding.why}. {finding.fix}" for finding in errors]
    if any(finding.repairable for finding in errors):
        problems.append("Some of this can be repaired: sqlquarry.bedrock.preflight.repair(directory)")
    _refuse(outline, problems)


def _refuse(outline: Path, problems: Collection[str]) -> None:
    if problems:
        raise AdoptionError(
            "\n- ".join([f"the model in {outline} cannot be adopted:", *(f"{one}." for one in problems)])
        )


def _refuse_quantized(outline: Path, checkpoint: Checkpoint, weights: CheckpointWeights) -> None:
    if checkpoint.architecture == GPT_OSS:  # published with MXFP4 experts, which the service accepts
        return
    levels = (checkpoint.config, checkpoint.text_config)
    settings = next((level[key] for level in levels for key in QUANTIZATION_KEYS if level.get(key)), None)
    method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else settings
    if settings and is_full(weights):
        raise AdoptionError(
            f"{outline}/config.json contains a quantization_config ({method!r:.80}), but the weights are not "
            "quantized. Servers would quantize them or fail. Remove the key, or call "
            "sqlquarry.bedrock.preflight.repair(directory), which removes it."
        )
    packed = [name for name, tensor in weights.tensors.items() if QUANTIZED.search(name) or _is_packed(tensor.dtype)]
    if settings or packed:
        found = f"quantization_config is {method!r:.80}" if settings else f"{packed[0]} belongs to quantized weights"
        raise AdoptionError(
            f"the model in {outline} is quantized ({found}), but Bedrock imports 16-bit weights. Merge the adapter "
            "into the 16-bit base model, and save the result in 16 bit (Unsloth: save_method='merged_16bit')."
        )


def _is_packed(dtype: str) -> bool:
    return dtype.startswith("F8") or dtype in ("U8", "I8", "F4")


def _refuse_unmerged(outline: Path, names: Collection[str]) -> None:
    """Refuse tensors of an adapter or of a wrapper, which servers ignore or fail at."""
    if unmerged := [name for name in names if _UNMERGED.search(name)]:
        raise AdoptionError(
            f"{len(unmerged)} of {len(names)} tensors in {outline} belong to an adapter that was not merged "
            f"({unmerged[0]:.200}). Save the model that merge_and_unload() returns, or adopt the adapter with "
            "sq.adopt_adapter."
        )
    for part, origin in _WRAPPERS.items():
        if wrapped := [name for name in names if name.startswith(part) or f".{part}" in name]:
            raise AdoptionError(
                f"{len(wrapped)} of {len(names)} tensors in {outline} have the names of a wrapper of {origin} "
                f"({wrapped[0]:.200}). Save the model inside the wrapper, into an empty directory."
            )
