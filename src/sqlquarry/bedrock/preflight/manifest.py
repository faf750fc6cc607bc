"""Check a model against its manifest: everything is there, and the prompt is that of the training."""

from __future__ import annotations

from collections.abc import Iterator

from sqlquarry.artifacts import MergedModel
from sqlquarry.bedrock.preflight.findings import MALFORMED, PreflightFinding, error, listed
from sqlquarry.bedrock.preflight.source import Source
from sqlquarry.files.metadata import check_size
from sqlquarry.manifests import MANIFEST, Manifest
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter

_MERGE_STATE = ".merge.json"  # which `AdapterMerger` keeps until it is done


def trained_with(merged: MergedModel, formatter: PromptFormatter) -> Iterator[PreflightFinding]:
    """Check that the prompt beside the weights is the one that they were trained with."""
    trained = merged.manifest.provenance.get("prompt_fingerprint")
    if trained != formatter.fingerprint:
        message = f"the weights were trained with prompt {trained!r}, but this one is {formatter.fingerprint!r}"
        why = "The model would be served a prompt that it never saw"
        fix = "Restore the prompt.json that the adapter carries"
        yield error("prompt-fingerprint", PROMPT_FILE, message, why, fix)


def upload_finished(source: Source) -> Iterator[PreflightFinding]:
    """Check that a prefix which this library uploaded has its manifest, and all that the manifest names."""
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
    except (OSError, *MALFORMED) as problem:
        yield error("manifest", MANIFEST, f"it cannot be read ({problem})", "It says what belongs to the model", fix)
        return
    if wrong:
        message = f"missing, or of another size than it says: {listed(wrong)}"
        yield error("manifest", MANIFEST, message, "A job would read a damaged model", fix)
