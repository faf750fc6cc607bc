"""Everything that would make an import fail, found at once and before any upload, from headers and small files.

preflight -> source (directory | S3) -> checkpoint -> config, tokenizer, tensors; request, account, role -> report
repair    -> what is mechanical among the findings, in place or into a new directory
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, Manifest, MergedModel
from sqlquarry.aws.failures import aws_errors
from sqlquarry.bedrock.dialect import export_files
from sqlquarry.bedrock.preflight import config, tensors, tokenizer, values
from sqlquarry.bedrock.preflight.account import attempt, check_account, check_bucket
from sqlquarry.bedrock.preflight.checkpoint import Checkpoint, read_files, read_weights
from sqlquarry.bedrock.preflight.findings import Finding, error, listed
from sqlquarry.bedrock.preflight.finite import MOST_REQUESTS, finite
from sqlquarry.bedrock.preflight.repairs import Repair, repair
from sqlquarry.bedrock.preflight.request import Request, check_request, given_uri, names_a_bucket
from sqlquarry.bedrock.preflight.source import CopiedSource, LocalSource, S3Source, Source, source_location
from sqlquarry.bedrock.stored_merge import StoredMerge
from sqlquarry.checkpoints.safetensors_header import INDEX
from sqlquarry.errors import ArtifactError, BedrockError, PreflightError, SQLQuarryError
from sqlquarry.files.locations import S3Location
from sqlquarry.files.metadata import check_size
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter

__all__ = ["Finding", "PreflightReport", "Repair", "preflight", "repair"]

Check = Callable[[Checkpoint], Iterator[Finding]]
_METADATA_CHECKS: tuple[Check, ...] = (*config.CHECKS, *values.CHECKS, *tokenizer.CHECKS)
_MERGE_STATE = ".merge.json"  # which `AdapterMerger` keeps until it is done
_MALFORMED = (AttributeError, IndexError, KeyError, TypeError, ValueError)


@dataclass(frozen=True, slots=True)
class PreflightReport:
    """What a preflight found; an empty report is a good one."""

    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        """Whether there is no error; warnings and notes do not count."""
        return not any(finding.severity == "error" for finding in self.findings)

    @property
    def warnings(self) -> tuple[Finding, ...]:
        """What does not stop an import, but may surprise."""
        return tuple(finding for finding in self.findings if finding.severity == "warning")

    def raise_for_errors(self) -> None:
        """Stop here if the import would fail.

        Raises:
            PreflightError: lists every finding with its fix.
        """
        if not self.ok:
            raise PreflightError(f"the import would fail, so nothing was uploaded:\n{self}")

    def __str__(self) -> str:
        return "\n".join(f"- {finding}" for finding in self.findings) or "no findings"


def preflight(
    source: MergedModel | Path | str,
    name: str | None = None,
    *,
    s3_uri: str | Path | None = None,
    job_name: str | None = None,
    region: str | None = None,
    session: Any = None,
    endpoint_url: str | None = None,
    role_arn: str | None = None,
    kms_key_id: str | None = None,
    vpc_config: Mapping[str, Sequence[str]] | None = None,
    formatter: PromptFormatter | None = None,
) -> PreflightReport:
    """Check a checkpoint, and the request to import it, without reading weights.

    Of a local one, the files are checked as `import_model` would upload them; what it would rewrite is a note. So
    it is with a merged model on S3, which `import_model` rewrites there; of any other S3 prefix, what is there. No
    object is downloaded but small files and the headers of shards.

    Args:
        source: a merged model, any directory in transformers' form, or ``s3://bucket/prefix``.
        name: the imported model's name.
        s3_uri: where the files are to lie; of an S3 source, its own URI.
        job_name: the import job's name.
        region: where the model is to be served; None takes the session's.
        session: a boto3 session; with one, the account is checked too.
        endpoint_url: another address for all AWS calls.
        role_arn: the role that the service assumes.
        kms_key_id: the key to encrypt the imported model with.
        vpc_config: ``{"subnetIds": […], "securityGroupIds": […]}``.
        formatter: the prompt that `import_model` is given for a local checkpoint without prompt.json.

    Raises:
        ConfigError: there is no such directory, or no region is known.
        BedrockError: the prefix cannot be listed or read (network, credentials).
        MissingExtraError: boto3 is not installed, where AWS is asked.
    """
    place = source_location(source)
    on_s3 = isinstance(place, S3Location)
    region = region or (session.region_name if session is not None else None)
    request = Request(
        name, job_name, given_uri(s3_uri) or (str(place) if on_s3 else None), region, role_arn, kms_key_id, vpc_config
    )
    findings = [*check_request(request)]
    if isinstance(place, S3Location):
        if not names_a_bucket(str(place)):
            return PreflightReport(tuple(findings))
        there = S3Source(place, session=session, endpoint_url=endpoint_url, region=region)
        findings += _remote(there, region, formatter)
        if session is None:
            findings += attempt(
                place.bucket, "s3:ListBucket", lambda: check_bucket(there.prefix.client, place.bucket, region)
            )
    else:
        findings += _local(place, source if isinstance(source, MergedModel) else None, region, formatter)
    if session is not None:
        findings += check_account(request, session=session, endpoint_url=endpoint_url)
    return PreflightReport(tuple(findings))


def _remote(source: S3Source, region: str | None, formatter: PromptFormatter | None) -> Iterator[Finding]:
    if not source.sizes:
        with aws_errors(BedrockError, f"looking for {source.uri}"):
            reason = source.prefix.why_empty()
        why, fix = "An import job reads the files directly below its URI", "Give the prefix that holds config.json"
        yield error("s3-uri", source.uri, reason.rstrip("."), why, fix)
        return
    with tempfile.TemporaryDirectory() as directory:
        try:
            stored = StoredMerge.copy(source.uri, source.sizes, source.read, Path(directory))
        except (OSError, ArtifactError, *_MALFORMED) as problem:
            why = "import_model takes a merged model only as its manifest describes it"
            fix = "Merge again into a new prefix, or restore the file"
            yield error("manifest", MANIFEST, str(problem).rstrip("."), why, fix)
            return
        if stored is not None:
            yield from _exported(
                CopiedSource(source, Path(directory)), Path(directory), stored.model, region, formatter
            )
            return
    files, templates, unreadable = read_files(source)
    weights, bad_weights = read_weights(source)
    yield from (*unreadable, *bad_weights, *_upload_finished(source))
    if not unreadable:
        yield from _checked(
            (*_METADATA_CHECKS, *tensors.CHECKS), Checkpoint(source.sizes, files, templates, weights, None, region)
        )
    if weights is not None:
        yield from finite(source, weights, most_reads=MOST_REQUESTS)


def _local(
    directory: Path, merged: MergedModel | None, region: str | None, passed: PromptFormatter | None
) -> Iterator[Finding]:
    source = LocalSource(directory)
    if merged is None and MANIFEST in source.sizes:
        try:
            merged = MergedModel.load(directory)
        except ArtifactError as problem:
            why = "import_model takes a merged model only as its manifest describes it"
            yield error("manifest", MANIFEST, str(problem).rstrip("."), why, "Merge again, or remove the manifest")
    yield from _exported(source, directory, merged, region, passed)


def _exported(
    source: Source, directory: Path, merged: MergedModel | None, region: str | None, passed: PromptFormatter | None
) -> Iterator[Finding]:
    """Findings on what `import_model` makes of a checkpoint whose small files are in a directory."""
    files, templates, unreadable = read_files(source)
    formatter = None
    if merged is not None or PROMPT_FILE in source.sizes:
        try:
            formatter = PromptFormatter.load(directory)
            _ = formatter.chat_template
        except (SQLQuarryError, *_MALFORMED) as problem:
            why = "The model is served the prompt that it was trained with"
            message = f"it cannot be used ({problem})"
            unreadable.append(error("prompt", PROMPT_FILE, message, why, "Restore the adapter's own"))
    weights, bad_weights = read_weights(source)
    yield from (*unreadable, *bad_weights)
    if unreadable:
        return
    try:
        exported = export_files(directory, passed)
    except _MALFORMED as problem:
        why = "What 4.51.3 does not read must be rewritten before the upload"
        yield error("file", "*.json", f"the metadata cannot be rewritten ({problem})", why, "Restore the files")
        return
    old_files, old_templates, _ = read_files(source, exported)
    served = replace(weights, has_metadata=True) if weights is not None and INDEX in exported else weights
    checkpoint = Checkpoint(source.sizes, old_files, old_templates, served, formatter or passed, region)
    checkpoint = replace(checkpoint, trained=replace(checkpoint, files=files).tokenizer)
    found = [*_checked((*_METADATA_CHECKS, *tensors.CHECKS), checkpoint)]
    uploaded = isinstance(source, LocalSource)
    yield from map(_as_uploaded, found) if uploaded else found
    if weights is not None:
        yield from finite(source, weights) if uploaded else finite(source, weights, most_reads=MOST_REQUESTS)
    if merged is None:
        yield from _rewritten_at_upload(replace(checkpoint, files=files, templates=templates, weights=weights), found)
    elif formatter is not None:
        yield from _trained_with(merged, formatter)


def _as_uploaded(finding: Finding) -> Finding:
    """What stays on this machine cannot fail an import."""
    if finding.code != "stray-shard":
        return finding
    fix = "Nothing to do: import_model leaves it here; `repair(…, output=…)` does too"
    return replace(finding, severity="note", fix=fix)


def _checked(checks: Iterable[Check], checkpoint: Checkpoint) -> Iterator[Finding]:
    for check in checks:
        try:
            yield from check(checkpoint)
        except _MALFORMED as problem:
            message = f"the check of {check.__name__} cannot read it ({type(problem).__name__}: {problem})"
            why = "A server that reads the same files would stumble as well"
            yield error("malformed", "*.json", message, why, "Restore the base model's files")


def _rewritten_at_upload(raw: Checkpoint, remaining: Iterable[Finding]) -> Iterator[Finding]:
    """Notes on what is wrong in the files as they lie, and will not be in what is uploaded."""
    there = {(finding.code, finding.where) for finding in remaining}
    for finding in _checked(_METADATA_CHECKS, raw):
        if (finding.code, finding.where) not in there:
            fix = "Nothing to do: import_model rewrites it at upload; `repair` does so on disk"
            yield replace(finding, severity="note", fix=fix, repairable=True)


def _trained_with(merged: MergedModel, formatter: PromptFormatter) -> Iterator[Finding]:
    """The prompt beside the weights is the one that they were trained with."""
    trained = merged.manifest.provenance.get("prompt_fingerprint")
    if trained != formatter.fingerprint:
        message = f"the weights were trained with prompt {trained!r}, but this one is {formatter.fingerprint!r}"
        why = "The model would be served a prompt that it never saw"
        fix = "Restore the prompt.json that the adapter carries"
        yield error("prompt-fingerprint", PROMPT_FILE, message, why, fix)


def _upload_finished(source: Source) -> Iterator[Finding]:
    """A prefix that this library uploaded has its manifest, and all that the manifest names."""
    fix = "Run import_model again: it resumes where it stopped"
    if MANIFEST not in source.sizes:
        if _MERGE_STATE in source.sizes:
            again = "Run the same merge again: it continues where it stopped"
            yield error("unfinished", MANIFEST, "a merge did not finish", "A job would read a part of the model", again)
        elif PROMPT_FILE in source.sizes:
            message = "prompt.json is there without a manifest: an upload did not finish"
            yield error("unfinished", MANIFEST, message, "A job would read a part of the model", fix)
        return
    try:
        check_size(MANIFEST, source.sizes[MANIFEST])
        entries = Manifest.parse(source.read(MANIFEST), MANIFEST).files
        wrong = [name for name, entry in entries.items() if source.sizes.get(name) != entry["bytes"]]
    except (OSError, *_MALFORMED) as problem:
        yield error("manifest", MANIFEST, f"it cannot be read ({problem})", "It says what belongs to the model", fix)
        return
    if wrong:
        message = f"missing, or of another size than it says: {listed(wrong)}"
        yield error("manifest", MANIFEST, message, "A job would read a damaged model", fix)
