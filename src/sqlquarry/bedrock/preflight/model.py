"""Check a model's files on this machine or below an S3 prefix as the service would read them."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.failures import aws_errors
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.bedrock.preflight import config, config_values, tensors, tokenizer
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint, read_files, read_weights
from sqlquarry.bedrock.preflight.findings import MALFORMED, PreflightFinding, error, listed
from sqlquarry.bedrock.preflight.source import CopiedSource, LocalSource, S3Source, Source
from sqlquarry.bedrock.preflight.tensors import MOST_REQUESTS, finite
from sqlquarry.bedrock.stored_merge import StoredMerge
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.errors import ArtifactError, BedrockError, SQLQuarryError
from sqlquarry.files.metadata import check_size
from sqlquarry.manifests import MANIFEST, MERGE_STATE, Manifest
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter

Check = Callable[[Checkpoint], Iterator[PreflightFinding]]
_METADATA_CHECKS: tuple[Check, ...] = (*config.CHECKS, *config_values.CHECKS, *tokenizer.CHECKS)
_CHECKS: tuple[Check, ...] = (*_METADATA_CHECKS, *tensors.CHECKS)


def check_stored_model(
    source: S3Source, region: str | None, formatter: PromptFormatter | None
) -> Iterator[PreflightFinding]:
    """Check a model below an S3 prefix. A merged model is checked as `import_model` would rewrite it."""
    if not source.sizes:
        with aws_errors(BedrockError, f"looking for {source.uri}"):
            reason = source.prefix.why_empty()
        why, fix = "An import job reads the files directly below its URI", "Use the prefix that contains config.json"
        yield error("s3-uri", source.uri, reason.rstrip("."), why, fix)
        return
    with tempfile.TemporaryDirectory() as directory:
        try:
            stored = StoredMerge.copy(source.uri, source.sizes, source.read, Path(directory))
        except (OSError, ArtifactError, *MALFORMED) as problem:
            why = "import_model accepts a merged model only if it matches its manifest"
            fix = "Merge again into a new prefix, or restore the file"
            yield error("manifest", MANIFEST, str(problem).rstrip("."), why, fix)
            return
        if stored is not None:
            copied = CopiedSource(source, Path(directory))
            yield from _check_export(copied, Path(directory), stored.model, region, formatter)
            return
    files, templates, unreadable = read_files(source)
    weights, bad_weights = read_weights(source)
    yield from (*unreadable, *bad_weights, *_upload_finished(source))
    if not unreadable:
        yield from _run(_CHECKS, Checkpoint(source.sizes, files, templates, weights, None, region))
    if weights is not None:
        yield from finite(source, weights, most_reads=MOST_REQUESTS)


def check_local_model(
    directory: Path, merged: MergedModel | None, region: str | None, passed: PromptFormatter | None
) -> Iterator[PreflightFinding]:
    """Check the files that `import_model` would upload for a directory.

    Args:
        directory: the model's files.
        merged: the model, if the caller has loaded it.
        region: the region that is to serve the model, if known.
        passed: the prompt that is passed to `import_model`.
    """
    source = LocalSource(directory)
    if merged is None and MANIFEST in source.sizes:
        try:
            merged = MergedModel.load(directory)
        except ArtifactError as problem:
            why = "import_model accepts a merged model only if it matches its manifest"
            yield error("manifest", MANIFEST, str(problem).rstrip("."), why, "Merge again, or remove the manifest")
    yield from _check_export(source, directory, merged, region, passed)


def _check_export(
    source: Source, directory: Path, merged: MergedModel | None, region: str | None, passed: PromptFormatter | None
) -> Iterator[PreflightFinding]:
    """Check the files that `import_model` would write for a checkpoint whose small files are in a directory."""
    files, templates, unreadable = read_files(source)
    formatter: PromptFormatter | None = None
    if merged is not None or PROMPT_FILE in source.sizes:
        try:
            formatter = _bound_formatter(directory)
        except (SQLQuarryError, *MALFORMED) as problem:
            why = "The model must be served with the prompt that it was trained with"
            message = f"the prompt cannot be used ({problem})"
            unreadable.append(error("prompt", PROMPT_FILE, message, why, "Restore the adapter's prompt.json"))
    weights, bad_weights = read_weights(source)
    yield from (*unreadable, *bad_weights)
    if unreadable:
        return
    try:
        exported = export_files(directory, passed)
    except MALFORMED as problem:
        why = "Files that 4.51.3 cannot read must be rewritten before the upload"
        yield error("file", "*.json", f"the metadata cannot be rewritten ({problem})", why, "Restore the files")
        return
    old_files, old_templates, _ = read_files(source, exported)
    served = replace(weights, has_metadata=True) if weights is not None and INDEX in exported else weights
    checkpoint = Checkpoint(source.sizes, old_files, old_templates, served, formatter or passed, region)
    checkpoint = replace(checkpoint, trained=replace(checkpoint, files=files).tokenizer)
    found = [*_run(_CHECKS, checkpoint)]
    uploaded = isinstance(source, LocalSource)
    yield from map(_as_uploaded, found) if uploaded else found
    if weights is not None:
        yield from finite(source, weights) if uploaded else finite(source, weights, most_reads=MOST_REQUESTS)
    if merged is None:
        yield from _rewritten_at_upload(replace(checkpoint, files=files, templates=templates, weights=weights), found)
    elif formatter is not None:
        yield from _trained_with(merged, formatter)


def _bound_formatter(directory: Path) -> PromptFormatter:
    """Load the prompt of a directory, and refuse it if it is not bound."""
    formatter = PromptFormatter.load(directory)
    _ = formatter.chat_template  # only a bound prompt has one
    return formatter


def _as_uploaded(finding: PreflightFinding) -> PreflightFinding:
    """Turn findings about files that stay on this machine into notes, because they cannot fail an import."""
    if finding.code != "stray-shard":
        return finding
    fix = "Nothing to do, because import_model and `repair(…, output_dir=…)` leave the file here"
    return replace(finding, severity="note", fix=fix)


def _run(checks: Iterable[Check], checkpoint: Checkpoint) -> Iterator[PreflightFinding]:
    for check in checks:
        try:
            yield from check(checkpoint)
        except MALFORMED as problem:
            message = f"the check of {check.__name__} cannot read it ({type(problem).__name__}: {problem})"
            why = "A server that reads the same files would probably fail too"
            yield error("malformed", "*.json", message, why, "Restore the base model's files")


def _rewritten_at_upload(raw: Checkpoint, remaining: Iterable[PreflightFinding]) -> Iterator[PreflightFinding]:
    """Yield notes for problems in the current files that the upload will not have."""
    there = {(finding.code, finding.where) for finding in remaining}
    for finding in _run(_METADATA_CHECKS, raw):
        if (finding.code, finding.where) not in there:
            fix = "Nothing to do, because import_model rewrites it during the upload (`repair` does so on disk)"
            yield replace(finding, severity="note", fix=fix, repairable=True)


def _trained_with(merged: MergedModel, formatter: PromptFormatter) -> Iterator[PreflightFinding]:
    """Check that the weights were trained with the prompt next to them."""
    trained = merged.manifest.provenance.get("prompt_fingerprint")
    if trained != formatter.fingerprint:
        message = f"the weights were trained with prompt {trained!r}, but this prompt is {formatter.fingerprint!r}"
        why = "The model would get a prompt that it never saw in training"
        fix = "Restore the adapter's prompt.json"
        yield error("prompt-fingerprint", PROMPT_FILE, message, why, fix)


def _upload_finished(source: Source) -> Iterator[PreflightFinding]:
    """Check that a prefix that this library uploaded has a manifest and all files that the manifest lists."""
    fix = "Run import_model again, which resumes the upload"
    if MANIFEST not in source.sizes:
        if MERGE_STATE in source.sizes:
            again = "Run the same merge again, which resumes it"
            yield error("unfinished", MANIFEST, "a merge did not finish", "A job would read a partial model", again)
        elif PROMPT_FILE in source.sizes:
            message = "an upload did not finish, because there is a prompt.json without a manifest"
            yield error("unfinished", MANIFEST, message, "A job would read a partial model", fix)
        return
    try:
        check_size(MANIFEST, source.sizes[MANIFEST])
        entries = Manifest.parse(source.read(MANIFEST), MANIFEST).files
        wrong = [name for name, entry in entries.items() if source.sizes.get(name) != entry["bytes"]]
    except (OSError, *MALFORMED) as problem:
        why = "The manifest lists the files of the model"
        yield error("manifest", MANIFEST, f"the manifest cannot be read ({problem})", why, fix)
        return
    if wrong:
        message = f"files are missing or have another size than in the manifest: {listed(wrong)}"
        yield error("manifest", MANIFEST, message, "A job would read a damaged model", fix)
