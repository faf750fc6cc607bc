"""Write an adapter's README.md: a model card for the Hugging Face hub with the facts of the manifest."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlquarry.credentials import redacted
from sqlquarry.files.writing import write_atomically
from sqlquarry.provenance import TrainingRun, read_part
from sqlquarry.text import as_markdown, visible

CARD = "README.md"


@dataclass(frozen=True, slots=True)
class License:
    """A base model's license: its name on the hub, and the duties of anyone who redistributes the adapter."""

    hub_name: str
    notice: str


# The first pattern that matches the license's text decides. Sources: Meta Llama 3 Community License (2024-04-18),
# section 1.b; Llama 3.1 (2024-07-23), 3.2 (2024-09-25) and 3.3 (2024-12-06); Apache License 2.0, section 4.
_LLAMA = (
    "Built with {mark}. {name} is licensed under the {title}, Copyright © Meta Platforms, Inc. All Rights Reserved. "
    'The name of a model based on it must begin with "{prefix}". Copies must include this notice and the license. The '
    "Acceptable Use Policy applies."
)
_APACHE = (
    "The base model is under the Apache License 2.0. Copies must include the text of the license and the base model's "
    "NOTICE file, if it has one."
)
_LICENSES = (
    (r"llama\s*(3\.[123])\s*community\s*license", "llama{}", _LLAMA),
    (r"(?:meta\s*)?llama\s*(3)\s*community\s*license", "llama{}", _LLAMA),
    (r"apache\s*license\W+version\s*2\.0", "apache-2.0", _APACHE),
    (r"\bmit\s*license", "mit", "The base model is under the MIT License. Copies must include its copyright line."),
)


def base_license(base: Path) -> License | None:
    """Return the license in the base model's directory (``LICENSE*``), or None if it is missing or unknown.

    The architecture cannot replace that file, because many models with a Llama architecture are not Meta's.
    """
    for path in sorted(base.glob("LICENSE*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        for pattern, hub_name, notice in _LICENSES:
            if found := re.search(pattern, text, re.IGNORECASE):
                version = found[1] if found.groups() else ""
                first = version == "3"
                return License(
                    hub_name.format(version),
                    notice.format(
                        mark="Meta Llama 3" if first else "Llama",
                        name="Meta Llama 3" if first else f"Llama {version}",
                        title=f"{'Meta ' if first else ''}Llama {version} Community License"
                        + ("" if first else " Agreement"),
                        prefix="Llama 3" if first else "Llama",
                    ),
                )
    return None


def write_card(
    directory: Path,
    provenance: Mapping[str, Any],
    *,
    base: Path,
    scores: Mapping[str, str] | None = None,
) -> None:
    """Write README.md into an adapter's directory. Call this before the manifest, which contains its hash, is written.

    Args:
        directory: the adapter's directory.
        provenance: the content of the manifest.
        base: the base model's directory, for its license.
        scores: name of a measure -> value as text ("execution accuracy" -> "81.2 % (78.0 to 84.1, n = 629)").
    """
    write_atomically(
        directory / CARD, model_card(redacted(provenance), base_license(base), redacted(scores or {})).encode()
    )


def model_card(provenance: Mapping[str, Any], terms: License | None, scores: Mapping[str, str]) -> str:
    """Return the text of the card: a YAML header for the hub, then prose and tables.

    Source of the header's fields: https://huggingface.co/docs/hub/model-cards, "Model card metadata".
    """
    from huggingface_hub import ModelCardData

    run, config = read_part(TrainingRun, provenance["run"]), provenance["config"]
    name = str(provenance["base_model"]["name"])
    hub_id = name if re.fullmatch(r"[\w.-]+/[\w.-]+", name) else None
    header = ModelCardData(
        base_model=hub_id,
        base_model_relation="adapter" if hub_id else None,
        library_name="peft",
        pipeline_tag="text-generation",
        language=["en"],
        license=terms.hub_name if terms else None,
        tags=["text-to-sql", "lora", "qlora", "sqlquarry"],
    ).to_yaml()
    recipe = provenance.get("quantization")
    held = f"4-bit {str(recipe['quant_type']).upper()} weights" if recipe else "unquantized weights"
    about = (
        f"This is a LoRA adapter of rank {config['lora_r']}, trained with SQLQuarry on {held} of the base model. It "
        "works only with the prompt in `prompt.json`. Load both together (`sqlquarry.LocalModel(adapter)`), or merge "
        "them."
    )
    sections = [
        f"# Text-to-SQL adapter for {hub_id or as_markdown(Path(name).name)}",
        about,
        "![Training loss](loss.svg)",
        "## Data\n\n" + _table(_data_rows(run, provenance)),
        "## Scores\n\n"
        + (
            _table(scores)
            if scores
            else "None yet. Measure them with `SQLJudge` on questions outside the training data."
        ),
        "## Training\n\n" + _table(_run_rows(run)),
        "### Configuration\n\n" + _table({f"`{key}`": f"`{value}`" for key, value in config.items()}),
        "### Versions\n\n" + _table(provenance.get("versions", {})),
        "## License\n\n"
        + (terms.notice if terms else "The base model's directory contains no known license. Look up its license.")
        + " The training data may have its own terms.",
    ]
    return f"---\n{header}\n---\n\n" + "\n\n".join(sections) + "\n"


def _data_rows(run: TrainingRun, provenance: Mapping[str, Any]) -> dict[str, str]:
    return {
        "records": f"{run.records:,}",
        "tokens": f"{run.tokens_per_epoch:,} per epoch, in {run.rows:,} packed rows",
        "SHA-256 of the encoded records": f"`{provenance['data_sha256']}`",
        "prompt fingerprint": f"`{provenance['prompt_fingerprint']}`",
        "SHA-256 of the base model": f"`{provenance['base_model']['sha256']}`",
    }


def _run_rows(run: TrainingRun) -> dict[str, str]:
    rows = {
        "mean training loss": f"{run.training_loss:.4f}",
        "steps": f"{run.steps:,}",
        "peak learning rate": f"{run.learning_rate:.2e}",
        "seconds": f"{run.duration_s:,.0f} ({run.tokens_per_second:,.0f} tokens/s)",
        "device": f"{run.processes} × {run.device}",
    }
    if run.peak_memory_bytes:
        rows["peak memory"] = f"{run.peak_memory_bytes / 2**30:.2f} GiB"
    return rows


def _table(rows: Mapping[str, object]) -> str:
    lines = [f"| {_cell(key)} | {_cell(value)} |" for key, value in rows.items()]
    return "\n".join(["| | |", "|---|---|", *lines])


def _cell(value: object) -> str:
    """Return a code span unchanged, and other text with its Markdown markup escaped."""
    text = visible(str(value), one_line=True)
    return text.replace("|", "\\|") if re.fullmatch("`[^`]*`", text) else as_markdown(text)
