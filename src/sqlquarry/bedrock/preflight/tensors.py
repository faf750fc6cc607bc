"""Check the safetensors files: leftovers, shards and index, dtypes, sizes, and the shapes that config.json implies."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from sqlquarry.bedrock.export.non_finite import NAN_OR_INFINITY, holds_non_finite
from sqlquarry.bedrock.export.weights import DTYPES, QUANTIZED, CheckpointWeights, is_full
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint
from sqlquarry.bedrock.preflight.config import GPT_OSS, MULTIMODAL_ARCHITECTURES
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error, listed, warning
from sqlquarry.bedrock.preflight.source import Source
from sqlquarry.checkpoints.foreign_model import refusals
from sqlquarry.checkpoints.safetensors_header import INDEX, ONE_SHARD, Tensor
from sqlquarry.checkpoints.tensor_shapes import expected_tensors

MAX_SHARD_BYTES = 5 * 2**30  # imports are known to work up to this size. The default of transformers 4 was 5 GB
MAX_TEXT_BYTES, MAX_MULTIMODAL_BYTES = 200 * 10**9, 100 * 10**9
_LOOKED_AT_BYTES = 16 * 2**10
_MOST_READS = 2_000  # for a local checkpoint, because 100,000 tensors would take minutes
MOST_REQUESTS = 4  # for a checkpoint on S3

_AGAIN = "Merge or save again, into an empty directory"
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "shared.weight")
# Constants that older versions of transformers saved, but that every server computes itself.
_BUFFERS = re.compile(r"\.(rotary_emb\.inv_freq|attn\.bias|attn\.masked_bias)$")
_TIED_BY_DEFAULT = ("T5ForConditionalGeneration", "GPTBigCodeForCausalLM")


def leftovers(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check for adapters, quantized weights, and leftover files of a training or in other formats."""
    names, weights = checkpoint.sizes, checkpoint.weights
    merge = "Merge it (AdapterMerger, or PEFT's merge_and_unload), then leave it out"
    for name in names:
        if re.fullmatch(r"adapter_(config\.json|model.*)", name):
            why = "The service reads only full weights"
            yield error("adapter", name, "there is an adapter next to the weights", why, merge)
    for name in ("quantize_config.json", "quant_config.json", "hf_quant_config.json"):
        if name in names:
            if weights is not None and is_full(weights):
                message = "the file is left over, because the weights themselves are not quantized"
                why = "A server may assume quantized weights"
                fix = "Remove it. import_model and repair(…, output_dir=…) leave it out"
                yield warning("quantized", name, message, why, fix)
                continue
            why = "Quantized weights fail as a size mismatch"
            yield error("quantized", name, "the file belongs to quantized weights", why, "Save the model in bfloat16")
    tensors = weights.tensors if weights else {}
    if lora := [name for name in tensors if ".lora_" in name or name.startswith("base_model.model.")]:
        message = f"{len(lora)} tensors belong to an unmerged LoRA"
        yield error("adapter", listed(lora, 1), message, "The service reads only full weights", merge)
    gpt_oss = checkpoint.architecture == GPT_OSS
    if not gpt_oss and (packed := [name for name in tensors if QUANTIZED.search(name)]):
        message = f"{len(packed)} tensors belong to quantized weights"
        why = "Quantized weights fail as a size mismatch"
        yield error("quantized", listed(packed, 1), message, why, "Dequantize the model and save it in bfloat16")
    debris = [name for name in names if _is_debris(name)]
    if debris:
        yield warning(
            "leftovers",
            "files",
            f"{len(debris)} files do not belong to a model to import: {listed(debris)}",
            "A job reads everything below its prefix, and users report jobs that fail because of leftovers",
            "Leave them out. import_model and repair(…, output_dir=…) copy only the files that are needed",
        )


def _is_debris(name: str) -> bool:
    folder, _, file = name.rpartition("/")
    return (
        file.endswith((".bin", ".gguf", ".pth", ".pt", ".h5", ".msgpack", ".onnx", ".mlmodel", ".ckpt"))
        or file in ("trainer_state.json", "optimizer.safetensors", "latest", "zero_to_fp32.py")
        or bool(re.match(r"(checkpoint-\d+|global_step\d+|original|runs)(/|$)", folder))
    )


def shards(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that index and shards contain the same tensors, each once, and that no file is too large."""
    weights = checkpoint.weights
    if weights is None:
        return
    if weights.index is None:
        yield from _without_index(weights)
    else:
        yield from _with_index(weights, weights.index)
    twice = duplicates(weights)
    if twice:
        message = f"{len(twice)} tensors are in more than one shard"
        why = "It is not defined which copy is served"
        yield error("duplicate-tensors", listed(twice), message, why, _AGAIN)
    for shard in weights.unreadable:
        message = f"the format in its metadata is {weights.formats[shard]!r}, not 'pt'"
        why = "transformers 4.51.3 refuses such a file"
        yield error("format", shard, message, why, "Save it again with metadata={'format': 'pt'}", repairable=True)
    large = {shard: size for shard, size in weights.sizes.items() if size > MAX_SHARD_BYTES}
    for shard, size in large.items():
        yield warning(
            "shard-size",
            shard,
            f"{size / 2**30:.1f} GiB in one file",
            f"Imports are known to work with shards up to {MAX_SHARD_BYTES / 2**30:.0f} GiB",
            "Save again with max_shard_size='5GB'",
            repairable=len(weights.shards[shard]) > 1,
        )
    multimodal = checkpoint.architecture in MULTIMODAL_ARCHITECTURES
    limit, total = MAX_MULTIMODAL_BYTES if multimodal else MAX_TEXT_BYTES, sum(weights.sizes.values())
    if total >= limit:
        message = f"{total / 1e9:.0f} GB of weights"
        why = f"The service accepts less than {limit / 1e9:.0f} GB"
        yield error("total-size", "*.safetensors", message, why, "Use a smaller base model")


def duplicates(weights: CheckpointWeights) -> set[str]:
    """Return the tensors that are in more than one of the shards that a server reads."""
    counts = Counter(name for held in weights.loaded.values() for name in held)
    return {name for name, count in counts.items() if count > 1}


def _strays(weights: CheckpointWeights) -> Iterator[PreflightFinding]:
    for shard in sorted(weights.shards.keys() - weights.loaded.keys()):
        yield error(
            "stray-shard",
            shard,
            "the file is not one of the model's shards",
            "A server that reads all safetensors files of a prefix mixes it into the model",
            "Remove it. It is a leftover, or the same weights in another format",
        )


def _without_index(weights: CheckpointWeights) -> Iterator[PreflightFinding]:
    yield from _strays(weights)
    if ONE_SHARD in weights.shards:
        return
    if len(weights.shards) > 1:
        message = f"{len(weights.shards)} shards, but no index"
        why = "Without an index, a job fails or reads only one shard"
        yield error("index-missing", INDEX, message, why, _AGAIN, repairable=not duplicates(weights))
    else:
        message = f"without an index, the only file must be called {ONE_SHARD}"
        why = "transformers looks for this name only"
        yield error("index-missing", next(iter(weights.shards)), message, why, "Rename it", repairable=True)


def _with_index(weights: CheckpointWeights, index: Mapping[str, str]) -> Iterator[PreflightFinding]:
    why = "The server looks every tensor up in the index"
    absent = set(index.values()) - weights.shards.keys()
    for shard in sorted(absent):
        message = f"the index lists {shard}, which does not exist"
        yield error("shard-missing", INDEX, message, why, "Copy the shard again from its origin")
    yield from _strays(weights)
    held = {name: shard for shard, tensors in weights.loaded.items() for name in tensors}
    lost = {name for name, shard in index.items() if name not in held and shard not in absent}
    for names, message in (
        (lost, "the index lists tensors that no shard contains"),
        (held.keys() - index.keys(), "a shard contains tensors that the index does not list"),
        (
            {name for name in held.keys() & index.keys() if held[name] != index[name]},
            "the index lists tensors under a shard that does not contain them",
        ),
    ):
        if names:
            yield error("index-mismatch", listed(names), f"{message} ({len(names)})", why, _AGAIN)


def _dtypes(weights: CheckpointWeights) -> dict[str, str]:
    """Return dtype -> the name of a tensor that has it."""
    return {t.dtype: name for name, t in weights.tensors.items() if not _BUFFERS.search(name)}


def stored_dtype(weights: CheckpointWeights) -> str | None:
    """Return torch's name of the weights' floating-point dtype, or None if they have several or another dtype."""
    found = _dtypes(weights)
    return DTYPES.get(next(iter(found))) if len(found) == 1 else None


def dtypes(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that all weights share one floating-point dtype, and that config.json names it."""
    if checkpoint.weights is None or checkpoint.architecture == GPT_OSS:  # published with MXFP4 experts in uint8
        return
    found = _dtypes(checkpoint.weights)
    bad = {dtype: name for dtype, name in found.items() if dtype not in DTYPES}
    why = "The service reads 16- and 32-bit floats, and serves in the dtype that config.json names"
    if bad:
        dtype, name = next(iter(bad.items()))
        message = f"dtype {dtype} is not one of {sorted(DTYPES)}"
        yield error("dtype", name, message, why, "Write the weights as bfloat16")
    elif len(found) > 1:
        examples = ", ".join(f"{name} is {dtype}" for dtype, name in sorted(found.items()))
        yield error("mixed-dtypes", "*.safetensors", f"dtypes differ: {examples}", why, "Write all as bfloat16")
    elif stored := stored_dtype(checkpoint.weights):
        text, config = checkpoint.text_config, checkpoint.config
        named = text.get("torch_dtype") or config.get("torch_dtype") or text.get("dtype") or config.get("dtype")
        if named != stored:
            message = f"torch_dtype is {named!r}, but the weights are {stored}"
            fix = "Set torch_dtype to the dtype of the weights"
            yield error("config-dtype", "config.json", message, why, fix, repairable=True)


def implied(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that the tensors and their shapes are exactly those that config.json implies."""
    # With an impossible size, the list of expected tensors could become extremely long.
    if checkpoint.weights is None or any(found.code == "model-size" for found in refusals(checkpoint.files)):
        return
    try:
        expected = expected_tensors(checkpoint.architecture, checkpoint.config)
    except (KeyError, TypeError, ValueError, ZeroDivisionError):
        return  # `config.keys` reports the missing size
    if expected is None:
        return
    tensors = {name: t for held in checkpoint.weights.loaded.values() for name, t in held.items()}
    tensors = {name: t for name, t in tensors.items() if not _BUFFERS.search(name)}
    missing = expected.keys() - tensors.keys() - {"lm_head.weight"}
    absent_shards = (
        checkpoint.weights.index and set(checkpoint.weights.index.values()) - checkpoint.weights.shards.keys()
    )
    if missing and not absent_shards:
        message = f"{len(missing)} tensors that config.json implies are missing"
        why = "The server fails to start, or fills them with random values"
        yield error("missing-tensors", listed(missing), message, why, _AGAIN)
    other = {
        name: (tensors[name].shape, shape)
        for name, shape in expected.items()
        if name in tensors and tensors[name].shape != shape and not name.endswith((*_EMBEDDINGS, "lm_head.weight"))
    }
    if other:
        _, (has, wanted) = min(other.items())
        message = f"{len(other)} tensors have another shape, first {list(has)} instead of {list(wanted)}"
        yield error("shapes", listed(other), message, "The job fails as a size mismatch", "Restore config.json")
    extra = {
        name
        for name in tensors.keys() - expected.keys() - {"lm_head.weight"}
        if not QUANTIZED.search(name) and ".lora_" not in name
    }
    if extra:
        message = f"{len(extra)} tensors are not part of a {checkpoint.architecture} with this config.json"
        yield warning("extra-tensors", listed(extra), message, "A strict server refuses to load them", _AGAIN)


def embeddings(checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    """Check that embeddings and output head have vocab_size rows, and that the head is there unless it is tied."""
    weights, config = checkpoint.weights, checkpoint.text_config
    if weights is None:
        return
    tensors, size = weights.tensors, config.get("vocab_size")
    head: dict[str, Tensor] = {n: t for n, t in tensors.items() if n.endswith("lm_head.weight")}
    rows = {n: t for n, t in tensors.items() if n.endswith(_EMBEDDINGS)} | head
    for name, tensor in rows.items():
        if list(tensor.shape[:1]) != [size if name in head else checkpoint.token_rows]:
            message = f"{list(tensor.shape[:1])} rows, but vocab_size in config.json is {size}"
            why = "The server allocates vocab_size rows, and fails with any other number"
            fix = "Set vocab_size to the number of rows, or resize the embeddings"
            yield error("vocabulary-size", name, message, why, fix)
    # If the key is missing, the default depends on the architecture.
    tied = config.get("tie_word_embeddings", checkpoint.config.get("tie_word_embeddings"))
    if tied is None:
        tied = checkpoint.architecture in _TIED_BY_DEFAULT
    # If the head's shard is missing, another finding reports it.
    if not tied and not head and "lm_head.weight" not in (weights.index or ()):
        message = "tie_word_embeddings is false, but there is no lm_head.weight"
        why = "The server needs an output head"
        fix = "Save the model again with its head, or set tie_word_embeddings to true if the head is tied"
        yield error("tied-head", "config.json", message, why, fix)
    if tied and head:
        message = "tie_word_embeddings is true, but there is an lm_head.weight"
        yield warning(
            "tied-head", "config.json", message, "A server ignores the head", "Set it to false if the head was trained"
        )


def finite(source: Source, weights: CheckpointWeights, *, most_reads: int = _MOST_READS) -> Iterator[PreflightFinding]:
    """Find NaN and infinity in small tensors, such as norms and biases, and at the beginning of large ones.

    The small tensors reveal a diverged training. `import_model` checks every weight of a directory without a manifest,
    because it must hash them anyway.

    Args:
        source: the files.
        weights: the shards' headers.
        most_reads: maximum number of reads. If there are more tensors, a sample of all sizes is checked.
    """
    tensors = sorted(
        ((shard, name, tensor) for shard, held in weights.loaded.items() for name, tensor in held.items()),
        key=lambda item: (item[2].end - item[2].start, item[1]),
    )
    # A diverged training leaves NaN in every tensor that it changed, which may be only the large ones.
    tensors = tensors[:: max(1, -(-len(tensors) // most_reads))]

    def bad(item: tuple[str, str, Tensor]) -> bool:
        shard, _, tensor = item
        length = min(_LOOKED_AT_BYTES, tensor.end - tensor.start)
        return holds_non_finite(tensor.dtype, source.read(shard, tensor.start, length))

    with ThreadPoolExecutor(8) as pool:
        names = [name for (_, name, _), wrong in zip(tensors, pool.map(bad, tensors), strict=True) if wrong]
    if names:
        message = f"{len(names)} tensors contain {NAN_OR_INFINITY}"
        why = "The import succeeds, but every answer is the same character"
        fix = "Train or merge again, because the training has probably diverged"
        yield error("non-finite", listed(names), message, why, fix)


CHECKS = (leftovers, shards, dtypes, implied, embeddings)
