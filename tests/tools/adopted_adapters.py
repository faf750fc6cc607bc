"""Adopt and merge every adapter that foreign_adapters.py made, and compare the logits with PEFT's unmerged model.

By hand, after foreign_adapters.py (see there), with the sqlquarry of this checkout:

    python tests/tools/adopted_adapters.py /tmp/foreign            # all adapters; prints tables in Markdown
    python tests/tools/adopted_adapters.py /tmp/foreign unsloth    # only those whose name contains a text

The merge is in float32, so a difference comes from the algebra, and once more in bfloat16. A 4-bit base is computed as
on CUDA, whose scales differ a little from those of the CPU that made the references. So a 4-bit merge is also compared
with the scales of a CPU. Each cell has the largest difference of logits, whose spread is about 0.8: of the merge in
float32, of the same merge in bfloat16, and of a merge in float32 with 4-bit weights as on CUDA.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
from foreign_bases import INPUT_IDS, load
from foreign_bases import logits as unmerged
from peft import PeftModel
from transformers import AutoModelForCausalLM

import sqlquarry as sq
from sqlquarry.manifests import write_manifest

torch.set_num_threads(1)
EXACT = 2e-4  # of logits whose spread is about 0.8
NF4: dict[str, Any] = {
    "load_in_4bit": True,
    "bnb_4bit_quant_type": "nf4",
    "bnb_4bit_use_double_quant": True,
    "bnb_4bit_compute_dtype": "bfloat16",
    "llm_int8_skip_modules": ["lm_head"],
}
# Adapters that must be refused, by a part of their name, and the error.
REFUSED = {
    "other-": "UnsupportedAdapterError",
    "llama-lora-bias": "UnsupportedAdapterError",  # the merged Llama would need biases
    "-pissa": "UnsupportedAdapterError",
    "added-not-saved": "AdoptionError",
    "peft0.7.1-llama-added-resized": "AdoptionError",
    "peft0.7.1-llama-added-padded": "AdoptionError",
    "peft0.10.0-llama-added-resized": "AdoptionError",
    "peft0.10.0-llama-added-padded": "AdoptionError",
    "wrapped0.21.2-llama-compiled-peft": "AdoptionError",
    "wrapped0.21.2-llama-ddp-peft": "AdoptionError",
    "wrapped0.21.2-llama-fsdp-peft": "AdoptionError",
}
NOT_REFUSED = ("added-padded-saved",)


@dataclasses.dataclass
class Outcome:
    error: str = ""
    message: str = ""
    exact: float = float("nan")
    rounding: float = float("nan")
    cuda: float = 0.0
    spread: float = float("nan")

    @property
    def fits(self) -> bool:
        return self.exact < EXACT and self.rounding < 0.05 * self.spread


def logits(model: Path) -> Any:
    with torch.no_grad():
        loaded = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
        return loaded(input_ids=torch.tensor([INPUT_IDS])).logits[0].numpy()


def merged(adapter: sq.AdapterCheckpoint, folder: Path, dtype: Any) -> Any:
    shutil.rmtree(folder, ignore_errors=True)
    sq.AdapterMerger(dtype=dtype).merge(adapter, folder)
    return logits(folder)


def on_cpu(adapter: sq.AdapterCheckpoint, folder: Path) -> sq.AdapterCheckpoint:
    """Return the adapter with the scales that bitsandbytes computes on a CPU, where the references were made."""
    provenance = json.loads(json.dumps(adapter.manifest.provenance))
    if provenance["quantization"] is None:
        return adapter
    provenance["quantization"] |= {"device": "cpu", "load_dtype": "bfloat16"}
    shutil.copytree(adapter.path, folder)
    return sq.AdapterCheckpoint(folder, write_manifest(folder, "adapter", provenance))


def tried(root: Path, name: str, entry: dict[str, Any], work: Path) -> Outcome:
    base, folder = root / "bases" / entry["family"], root / "adapters" / name
    if entry["variant"] == "named":
        folder /= "sql"
    if entry["variant"] == "pissa-converted":
        folder /= "pissa_converted"
    quantization: Any = "auto" if entry["tool"] == "axolotl" or "plain-bnb" in name else None
    if quantization is None and entry["four_bit"]:
        quantization = NF4 if entry["tool"] == "unsloth" else "nf4"
    try:
        adapter = sq.adopt_adapter(
            folder,
            base_model=base,
            formatter=sq.PromptFormatter(),
            quantization=quantization,
            output_dir=work / "adapter",
        )
        reference = np.load(root / "logits" / f"{name}.npy")
        if (
            folder.name == "pissa_converted"
        ):  # the kept logits are those of the folder above, on a base changed at random
            reference = unmerged(PeftModel.from_pretrained(load(base), folder))
        adapter, as_adopted = on_cpu(adapter, work / "on-cpu"), adapter
        cuda = 0.0 if adapter is as_adopted else abs(merged(as_adopted, work / "cuda", "float32") - reference).max()
        exact, rounded = (merged(adapter, work / dtype, dtype) for dtype in ("float32", "bfloat16"))
    except sq.SQLQuarryError as error:
        return Outcome(type(error).__name__, str(error))
    if exact.shape != reference.shape:
        return Outcome("shape", f"{exact.shape} instead of {reference.shape}")
    differences = [float(abs(found - reference).max()) for found in (exact, rounded)]
    return Outcome(exact=differences[0], rounding=differences[1], cuda=float(cuda), spread=float(reference.std()))


def must_refuse(name: str) -> str:
    if any(part in name for part in NOT_REFUSED):
        return ""
    return next((error for part, error in REFUSED.items() if part in name and "converted" not in name), "")


def main(folder: str, wanted: str = "") -> None:
    root = Path(folder).resolve()
    outcomes: dict[str, Outcome] = {}
    entries = json.loads((root / "MANIFEST.json").read_text())
    for name, entry in entries.items():
        if wanted not in name or not (root / "adapters" / name).is_dir():
            continue
        with tempfile.TemporaryDirectory() as work:
            outcomes[name] = found = tried(root, name, entry, Path(work))
        print(name, found.error, found.message.replace(str(root), "")[:400], found.exact, found.rounding, flush=True)
    table(outcomes, entries)


def table(outcomes: dict[str, Outcome], entries: dict[str, Any]) -> None:
    cells: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    others = []
    for name, found in outcomes.items():
        entry = entries[name]
        cells[entry["tool"]][entry["family"]].append(name)
        right = found.error == must_refuse(name) if found.error else found.fits and not must_refuse(name)
        if not right:
            others.append(f"- {name}: {found.error} {found.message} {found.exact:.2g} {found.rounding:.2g}")
    families = ["llama", "mistral", "qwen2", "qwen3"]
    print("\n| tool |", " | ".join(families), "|\n|---|" + "---|" * len(families))
    for tool, by_family in cells.items():
        print(f"| {tool} |", " | ".join(cell([outcomes[name] for name in by_family[one]]) for one in families), "|")
    print("\nOthers:\n" + ("\n".join(others) or "none"))


def cell(found: list[Outcome]) -> str:
    if not found:
        return ""
    kinds = Counter(one.error for one in found)
    parts = [f"{count} {error}" for error, count in kinds.items() if error]
    if good := [one for one in found if not one.error]:
        exact, rounding, cuda = (max(getattr(one, name) for one in good) for name in ("exact", "rounding", "cuda"))
        parts.insert(0, f"{len(good)} merged, {exact:.0e} (bf16 {rounding:.0e}, CUDA {cuda:.0e})")
    return "; ".join(parts)


if __name__ == "__main__":
    main(*sys.argv[1:])
