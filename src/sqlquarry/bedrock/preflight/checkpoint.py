"""Read a checkpoint's small files and shard headers once, for all checks."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from sqlquarry.bedrock.export.chat_template import TEMPLATE_FILES, templates
from sqlquarry.bedrock.export.metadata_files import OPTIONAL_FILES
from sqlquarry.bedrock.export.weights import CheckpointWeights
from sqlquarry.bedrock.preflight.findings import PreflightFinding, error
from sqlquarry.bedrock.preflight.source import Source
from sqlquarry.checkpoints.safetensors_header import INDEX, Tensor, parse_header, parse_index
from sqlquarry.files.metadata import JsonObject, check_size, parse_object
from sqlquarry.prompt import PromptFormatter
from sqlquarry.tokenizing.tokenizer_files import SENTENCEPIECE_FILES, TokenizerFiles

_REQUIRED = ("config.json", "tokenizer_config.json", "tokenizer.json")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_OTHERS = (*OPTIONAL_FILES, "added_tokens.json", *_PROCESSORS)
_READERS = 8


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A checkpoint without its weights.

    Args:
        sizes: every file -> bytes.
        files: name -> content of each JSON file that exists.
        templates: file -> Jinja source of each chat template, in order of precedence.
        weights: tensors and index, or None if they cannot be read.
        formatter: the prompt that the weights were trained with, if there is one.
        region: the region that is to serve the model, if known.
        trained: the tokenizer's files as the training read them, or None if they are the same files.
    """

    sizes: Mapping[str, int]
    files: Mapping[str, JsonObject]
    templates: Mapping[str, str]
    weights: CheckpointWeights | None
    formatter: PromptFormatter | None = None
    region: str | None = None
    trained: TokenizerFiles | None = None

    def file(self, name: str) -> JsonObject:
        """Return the content of a JSON file, or {} if the file does not exist."""
        return self.files.get(name, {})

    @property
    def config(self) -> JsonObject:
        """The content of config.json."""
        return self.file("config.json")

    @property
    def text_config(self) -> JsonObject:
        """The configuration of the language model, nested in multimodal ones."""
        nested = self.config.get("text_config")
        return nested if isinstance(nested, dict) else self.config

    @property
    def token_rows(self) -> int | None:
        """The number of tokens with an input embedding, or None if config.json does not contain it."""
        size = self.text_config.get("vocab_size")
        # Image tokens follow Mllama's vocabulary (models/mllama/modeling_mllama.py), and are never generated.
        extra = 8 if self.architecture == "MllamaForConditionalGeneration" else 0
        return size + extra if isinstance(size, int) else None

    @property
    def tokenizer_config(self) -> JsonObject:
        """The content of tokenizer_config.json."""
        return self.file("tokenizer_config.json")

    @property
    def tokenizer(self) -> TokenizerFiles:
        """The files that define how text becomes tokens."""
        return TokenizerFiles(
            tokenizer=self.file("tokenizer.json"),
            config=self.tokenizer_config,
            model=self.config,
            special=self.file("special_tokens_map.json"),
            added=self.file("added_tokens.json"),
            sentencepiece=not self.sizes.keys().isdisjoint(SENTENCEPIECE_FILES.values()),
        )

    @property
    def architecture(self) -> str | None:
        """The first of config.json's `architectures`, which is the only one that counts."""
        names = self.config.get("architectures")
        return str(names[0]) if isinstance(names, list) and names else None


def read_files(
    source: Source, rewritten: Mapping[str, bytes] | None = None
) -> tuple[dict[str, JsonObject], dict[str, str], list[PreflightFinding]]:
    """Read JSON files and chat templates, and return a finding for each that cannot be read.

    Args:
        source: the files.
        rewritten: name -> content that replaces a file. If given, it contains the only chat template.
    """
    rewritten = rewritten or {}
    files: dict[str, JsonObject] = {}
    found: dict[str, str] = {}
    findings = []

    def content(name: str) -> bytes | None:
        if name in rewritten:
            return rewritten[name]
        if rewritten and name in TEMPLATE_FILES:
            return None
        return _small(source, name) if name in source.sizes else None

    names = [*_REQUIRED, *(name for name in _OTHERS if name in source.sizes or name in rewritten)]
    with ThreadPoolExecutor(_READERS) as pool:
        futures = {name: pool.submit(content, name) for name in names}
    for name, future in futures.items():
        try:
            raw = future.result()
            if raw is None:
                findings.append(_missing(name, source.sizes))
                continue
            files[name] = parse_object(raw, name)
        except (OSError, ValueError) as problem:
            findings.append(_unreadable(name, str(problem)))
    try:
        found = templates(content, files.get("tokenizer_config.json", {}))
    except (OSError, ValueError) as problem:
        findings.append(_unreadable("chat_template", str(problem)))
    return files, found, findings


def read_weights(source: Source) -> tuple[CheckpointWeights | None, list[PreflightFinding]]:
    """Read the headers of all shards and the index, and return a finding for each that cannot be read."""
    names = [name for name in source.sizes if name.endswith(".safetensors") and "/" not in name]
    if not names:
        others = [name for name in source.sizes if name.endswith((".bin", ".pth", ".gguf", ".pt"))]
        there = f"there is only {others[0]}" if others else "there are no safetensors files"
        return None, [
            error(
                "weights",
                "*.safetensors",
                there,
                "The service reads weights from safetensors files only",
                "Save the model with save_pretrained(…, safe_serialization=True), or point at its directory",
            )
        ]
    findings: list[PreflightFinding] = []
    with ThreadPoolExecutor(_READERS) as pool:
        futures = {
            name: pool.submit(parse_header, name, source.sizes[name], partial(source.read, name)) for name in names
        }
    index, has_metadata = None, True
    if INDEX in source.sizes:
        try:
            index = parse_index(content := _small(source, INDEX))
            has_metadata = isinstance(parse_object(content, INDEX).get("metadata"), dict)
        except (OSError, ValueError) as problem:
            findings.append(_bad_weights(INDEX, str(problem)))
    shards: dict[str, Mapping[str, Tensor]] = {}
    formats: dict[str, str] = {}
    wanted = CheckpointWeights({name: {} for name in names}, {}, index).loaded
    for name, future in futures.items():
        try:
            header = future.result()
            shards[name], formats[name] = header.tensors, header.format
        except (OSError, ValueError) as problem:
            if name in wanted:
                findings.append(_bad_weights(name, str(problem)))
            else:
                shards[name] = {}  # no server reads this file
    sizes = {name: source.sizes[name] for name in names}
    return None if findings else CheckpointWeights(shards, sizes, index, formats, has_metadata), findings


def _small(source: Source, name: str) -> bytes:
    """Check the size of a metadata file, then read it."""
    check_size(name, source.sizes[name])
    return source.read(name)


def _missing(name: str, sizes: Mapping[str, int]) -> PreflightFinding:
    deeper = next((other for other in sizes if other.endswith(f"/{name}")), None)
    fix = f"Use the subfolder {deeper.rpartition('/')[0]!r} instead" if deeper else "Copy it from the base model"
    archive = next((other for other in sizes if other.endswith((".tar.gz", ".tgz", ".zip"))), None)
    if archive:
        fix = f"Unpack {archive}, because the service does not read archives"
    return error("file", name, "the file is missing", "An import job fails without it, after the upload", fix)


def _unreadable(name: str, problem: str) -> PreflightFinding:
    why = "An import job needs the complete file"
    return error("file", name, f"the file cannot be read ({problem})", why, "Restore the file")


def _bad_weights(name: str, problem: str) -> PreflightFinding:
    why = "An import job reads every byte, and fails at the end of a long upload"
    return error("weights", name, problem, why, "Copy the file again from its origin")
