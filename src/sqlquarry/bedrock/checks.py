"""What Custom Model Import is known to refuse or to get wrong, one small check each.

Sources: limits, architectures, tokenizers and regions from "Use Custom model import …",
docs.aws.amazon.com/bedrock/latest/userguide/model-customization-import-model.html; name patterns from the service's API
model (CreateModelImportJob).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.dialect import JsonObject, special_token_id
from sqlquarry.bedrock.weights import INDEX, Tensor, Weights
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter

TEXT_ARCHITECTURES = (
    "GPTBigCodeForCausalLM",
    "GptOssForCausalLM",
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
    "T5ForConditionalGeneration",
)
MULTIMODAL_ARCHITECTURES = (
    "MllamaForConditionalGeneration",
    "Qwen2VLForConditionalGeneration",
    "Qwen2_5_VLForConditionalGeneration",
)
TOKENIZERS = (
    "CodeLlamaTokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "LlamaTokenizer",
    "PreTrainedTokenizer",
    "Qwen2Tokenizer",
    "T5Tokenizer",
)
REGIONS = ("eu-central-1", "us-east-1", "us-east-2", "us-west-2")
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}  # safetensors' name -> torch's name
MAX_POSITIONS = 131_072  # the page says "less than 128K", yet Llama 3.1 with exactly 131072 is imported routinely
MAX_SHARD_BYTES = 5 * 2**30  # transformers 4's default shard size, and the largest object that S3 takes in one PUT
MAX_TEXT_BYTES, MAX_MULTIMODAL_BYTES = 200 * 10**9, 100 * 10**9
# The service overrides these values of a llama3 rope_scaling.
LLAMA3_ROPE = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}

_MODEL_NAME = re.compile(r"([0-9a-zA-Z][_-]?)+")
# The API's own [a-zA-Z0-9](-*[a-zA-Z0-9\+\-\.])* accepts the same, but takes exponential time to refuse "a------_".
_JOB_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9+\-.]*")
_S3_URI = re.compile(r"s3://[a-z0-9][-.a-z0-9]{1,61}[a-z0-9](?:/[-!_*'().a-z0-9A-Z]+)*/?")
_EMBEDDINGS = ("embed_tokens.weight", "wte.weight", "shared.weight")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that stands in the import's way ("error") or may surprise ("warning").

    Args:
        severity: an error keeps `import_model` from starting.
        code: the finding's name, stable across versions.
        where: the file, or the argument, that it is about.
        message: what is wrong, with the value.
        fix: what to do.
    """

    severity: Literal["error", "warning"]
    code: str
    where: str
    message: str
    fix: str

    def __str__(self) -> str:
        return f"{self.severity} [{self.code}] {self.where}: {self.message}. {self.fix}."


@dataclass(frozen=True, slots=True)
class Subject:
    """A merged model with its metadata as it will be exported."""

    merged: MergedModel
    config: JsonObject
    tokenizer_config: JsonObject
    tokenizer: JsonObject
    weights: Weights
    formatter: PromptFormatter

    @property
    def text_config(self) -> JsonObject:
        """The configuration of the language model, nested in multimodal ones."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config

    def tensors_named(self, *suffixes: str) -> Iterator[tuple[str, Tensor]]:
        """Tensors whose name ends with one of `suffixes`."""
        return (item for item in self.weights.tensors.items() if item[0].endswith(suffixes))


Check = Callable[[Subject], Iterator[Finding]]


def _error(code: str, where: str, message: str, fix: str) -> Finding:
    return Finding("error", code, where, message, fix)


def _warning(code: str, where: str, message: str, fix: str) -> Finding:
    return Finding("warning", code, where, message, fix)


def architecture(subject: Subject) -> Iterator[Finding]:
    """The first architecture is one that the service serves, without code of its own."""
    name = next(iter(subject.config.get("architectures") or ()), None)
    if name not in TEXT_ARCHITECTURES + MULTIMODAL_ARCHITECTURES:
        known = ", ".join(TEXT_ARCHITECTURES + MULTIMODAL_ARCHITECTURES)
        yield _error("architecture", "config.json", f"architecture {name!r} is not importable", f"Start from: {known}")
    if "auto_map" in subject.config:
        yield _error("custom-code", "config.json", "auto_map asks for code of the model's own", "Remove auto_map")


def leftovers(subject: Subject) -> Iterator[Finding]:
    """Full weights: no adapter, no quantised checkpoint."""
    for key in ("quantization_config", "compression_config"):
        if key in subject.config:
            yield _error("quantized", "config.json", f"{key} marks quantised weights", "Merge into 16-bit weights")
    for name in ("adapter_config.json", "adapter_model.safetensors"):
        if (subject.merged.path / name).exists():
            yield _error("adapter", name, "an adapter lies beside the weights", "Merge it, then leave it out")
    lora = [name for name in subject.weights.tensors if ".lora_" in name]
    if lora:
        yield _error("adapter", lora[0], f"{len(lora)} tensors belong to an unmerged LoRA", "Merge the adapter")


def positions(subject: Subject) -> Iterator[Finding]:
    """The context is at most 128K, and llama3 rope scaling is what the service makes of it."""
    value = subject.text_config.get("max_position_embeddings")
    if isinstance(value, int) and value > MAX_POSITIONS:
        yield _error(
            "max-positions",
            "config.json",
            f"max_position_embeddings is {value}, above {MAX_POSITIONS}",
            f"Set it to {MAX_POSITIONS} or to what the prompts need",
        )
    rope = subject.text_config.get("rope_scaling") or {}
    other = {key: rope.get(key) for key, used in LLAMA3_ROPE.items() if rope.get(key, used) != used}
    if rope.get("rope_type", rope.get("type")) == "llama3" and other:
        yield _warning(
            "rope-scaling",
            "config.json",
            f"the service overrides llama3 rope_scaling {other} with {LLAMA3_ROPE}",
            "Expect answers to drift from local ones, or start from a base with these values",
        )


def dtypes(subject: Subject) -> Iterator[Finding]:
    """All weights share one floating-point dtype, and config.json names it."""
    found = {tensor.dtype: name for name, tensor in subject.weights.tensors.items()}
    bad = {dtype: name for dtype, name in found.items() if dtype not in DTYPES}
    if bad:
        dtype, name = next(iter(bad.items()))
        yield _error("dtype", name, f"dtype {dtype} is not one of {sorted(DTYPES)}", "Write the weights as bfloat16")
    elif len(found) > 1:
        examples = ", ".join(f"{name} is {dtype}" for dtype, name in sorted(found.items()))
        yield _error("mixed-dtypes", "*.safetensors", f"dtypes differ: {examples}", "Write all weights as bfloat16")
    else:
        stored = [DTYPES[dtype] for dtype in found]
        named = subject.text_config.get("torch_dtype") or subject.config.get("torch_dtype")
        if [named] != stored:
            yield _error(
                "config-dtype",
                "config.json",
                f"torch_dtype is {named!r}, but the weights are {', '.join(stored)}",
                "Make torch_dtype that of the weights",
            )


def shards(subject: Subject) -> Iterator[Finding]:
    """Index and shards describe the same tensors, and no shard or sum of shards is too large."""
    weights = subject.weights
    again = "Merge again into an empty directory"
    if len(weights.shards) > 1 and weights.index is None:
        yield _error("index-missing", INDEX, f"{len(weights.shards)} shards, but no index", again)
    if weights.index is not None:
        held = {name: shard for shard, tensors in weights.shards.items() for name in tensors}
        for name in sorted(held.keys() ^ weights.index.keys()):
            side = "the index but in no shard" if name in weights.index else "a shard but not in the index"
            yield _error("index-mismatch", name, f"the tensor is in {side}", again)
        for name in sorted(name for name in held.keys() & weights.index.keys() if held[name] != weights.index[name]):
            message = f"the index says {weights.index[name]}, but it is in {held[name]}"
            yield _error("index-mismatch", name, message, again)
    for shard, size in weights.sizes.items():
        if size > MAX_SHARD_BYTES:
            yield _error(
                "shard-size",
                shard,
                f"{size / 2**30:.1f} GiB in one file; imports are known to work with up to 5 GiB",
                "Merge again with shards of at most 5 GB",
            )
    multimodal = next(iter(subject.config.get("architectures") or ()), None) in MULTIMODAL_ARCHITECTURES
    limit, total = MAX_MULTIMODAL_BYTES if multimodal else MAX_TEXT_BYTES, sum(weights.sizes.values())
    if total >= limit:
        message = f"{total / 1e9:.0f} GB of weights; the service takes less than {limit / 1e9:.0f} GB"
        yield _error("total-size", "*.safetensors", message, "Use a smaller base model")


def tokenizer_class(subject: Subject) -> Iterator[Finding]:
    """The tokenizer's class, after the rewrite, is one that the service loads."""
    name = str(subject.tokenizer_config.get("tokenizer_class"))
    if name.removesuffix("Fast") not in TOKENIZERS:
        yield _error(
            "tokenizer-class",
            "tokenizer_config.json",
            f"tokenizer_class {name!r} is not one of {', '.join(TOKENIZERS)} (or their Fast variants)",
            "Save the tokenizer as PreTrainedTokenizerFast",
        )


def vocabulary(subject: Subject) -> Iterator[Finding]:
    """config.json, embeddings, output head and tokenizer agree on the number of tokens."""
    size = subject.text_config.get("vocab_size")
    for name, tensor in subject.tensors_named(*_EMBEDDINGS, "lm_head.weight"):
        if tensor.shape[0] != size:
            message = f"{tensor.shape[0]} rows, but vocab_size in config.json is {size}"
            yield _error("vocabulary-size", name, message, "Set vocab_size to the rows, or resize the embeddings")
    words = subject.tokenizer.get("model", {}).get("vocab", {})
    ids = list(words.values()) if isinstance(words, dict) else list(range(len(words)))
    largest = max(ids + [int(token["id"]) for token in subject.tokenizer.get("added_tokens", ())], default=-1)
    if isinstance(size, int) and largest >= size:
        message = f"token id {largest} has no embedding: vocab_size is {size}"
        yield _error("vocabulary-size", "tokenizer.json", message, "Resize the embeddings before training")


def tied_head(subject: Subject) -> Iterator[Finding]:
    """A model with its own output head says so, and one without has tied embeddings."""
    # Where the key is missing, the default depends on the architecture.
    tied = subject.text_config.get("tie_word_embeddings", subject.config.get("tie_word_embeddings"))
    has_head = any(subject.tensors_named("lm_head.weight"))
    if tied is False and not has_head:
        message = "tie_word_embeddings is false, but there is no lm_head.weight"
        yield _error("tied-head", "config.json", message, "Merge again; the output head is missing")
    if tied and has_head:
        message = "tie_word_embeddings is true, so a server ignores lm_head.weight"
        yield _warning("tied-head", "config.json", message, "Set it to false if the head was trained")


def stop_token(subject: Subject) -> Iterator[Finding]:
    """An answer ends with a token that the server can stop at."""
    stop = subject.formatter.tokens.stop if subject.formatter.tokens else ""
    if special_token_id(subject.tokenizer, stop) is None:
        yield _error(
            "stop-token",
            PROMPT_FILE,
            f"answers end with {stop!r}, which ends with no special token of tokenizer.json, so they would never stop",
            "Train with a template that ends the assistant's turn with {{ eos_token }}",
        )


def prompt_fingerprint(subject: Subject) -> Iterator[Finding]:
    """The prompt beside the weights is the one that they were trained with."""
    trained = subject.merged.manifest.provenance.get("prompt_fingerprint")
    if trained != subject.formatter.fingerprint:
        yield _error(
            "prompt-fingerprint",
            PROMPT_FILE,
            f"the weights were trained with prompt {trained!r}, but this one is {subject.formatter.fingerprint!r}",
            "Restore the prompt.json that the adapter carries",
        )


CHECKS: tuple[Check, ...] = (
    architecture,
    leftovers,
    positions,
    dtypes,
    shards,
    tokenizer_class,
    vocabulary,
    tied_head,
    stop_token,
    prompt_fingerprint,
)


def request(name: str | None, job_name: str | None, s3_uri: str | None, region: str | None) -> Iterator[Finding]:
    """The names in the request have the service's patterns; None is not checked."""
    if name is not None and not (len(name) <= 63 and _MODEL_NAME.fullmatch(name)):
        fix = "Use at most 63 letters, digits and single - or _ between them (no dots, no --)"
        yield _error("model-name", "name", f"{name!r} is no name for an imported model", fix)
    if job_name is not None and not (len(job_name) <= 63 and _JOB_NAME.fullmatch(job_name)):
        fix = "Use at most 63 letters, digits, +, - and ., a letter or digit first"
        yield _error("job-name", "job_name", f"{job_name!r} is no name for an import job", fix)
    if s3_uri is not None and not (len(s3_uri) <= 1024 and _S3_URI.fullmatch(s3_uri)):
        fix = "Use s3://bucket/prefix/ with letters, digits and - ! _ * ' ( ) . only (no spaces, =, + or @)"
        yield _error("s3-uri", "s3_uri", f"{s3_uri!r} is not what the service takes", fix)
    if region is not None and region not in REGIONS:
        fix = f"Use one of {', '.join(REGIONS)}, unless the service has come to this region since"
        yield _warning("region", "region", f"Custom Model Import is not known to be in {region}", fix)
