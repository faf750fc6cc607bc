"""From records and a base model to a LoRA adapter."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import shutil
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sqlquarry.artifacts import MANIFEST, AdapterCheckpoint, Record, base_digest, write_manifest
from sqlquarry.errors import RecordError, TrainingError
from sqlquarry.extras import require
from sqlquarry.inference import pick_device
from sqlquarry.prompt import Encoded, PromptFormatter
from sqlquarry.quantization import (
    QuantizationRecipe,
    compute_dtype,
    load_causal_lm,
    quiet_transformers,
    recorded,
)
from sqlquarry.training.base_model import resolve_base_model
from sqlquarry.training.config import TrainingConfig, learning_rate_for
from sqlquarry.training.loop import build_trainer
from sqlquarry.training.packing import Row, pack

_PACKAGES = ("torch", "transformers", "trl", "peft", "bitsandbytes", "accelerate")


class QLoRAFSDPTrainer:
    """Fine-tune a base model with QLoRA on one CPU or one GPU; sharding over several (FSDP) is not there yet.

    Args:
        base_model: a directory, a ``.gguf`` file or a Hugging Face id.
        formatter: the prompt; None uses the published wording.
        config: see `TrainingConfig`.

    Source: Hu et al. 2021, arXiv:2106.09685 (LoRA); Dettmers et al. 2023, arXiv:2305.14314 (QLoRA).
    """

    def __init__(
        self,
        base_model: str | Path,
        formatter: PromptFormatter | None = None,
        config: TrainingConfig | None = None,
    ) -> None:
        self.base_model = base_model
        self.formatter = formatter or PromptFormatter()
        self.config = config or TrainingConfig()

    def train(
        self, train: Sequence[Record], evaluation: Sequence[Record] | None = None, *, output_dir: str | Path
    ) -> AdapterCheckpoint:
        """Train an adapter and save it with its prompt and manifest.

        A directory that already holds the finished adapter of the same base, records, prompt and configuration is
        returned as it is.

        Args:
            train: records with SQL.
            evaluation: records whose loss is reported after each epoch; they are not learnt.
            output_dir: receives ``adapter_model.safetensors``, ``adapter_config.json``, ``prompt.json``,
                ``training_log.jsonl`` and, last, ``manifest.json``.

        Raises:
            MissingExtraError: the extra "train" is not installed.
            RecordError: records without SQL, or longer than a row.
            ConfigError: base model and prompt do not fit (see `PromptFormatter.bind`).
            ModelError: the base model or the device cannot be used.
            TrainingError: `output_dir` holds something else, or the loss is no longer a number.
        """
        require("train", "QLoRAFSDPTrainer")
        from transformers import AutoTokenizer

        output = Path(output_dir)
        device = pick_device(self.config.device)
        base = resolve_base_model(self.base_model)
        tokenizer = AutoTokenizer.from_pretrained(base)
        formatter = self.formatter.bind(tokenizer)
        train_rows, data_digest = self._rows(train, formatter, tokenizer)
        evaluation_rows = self._rows(evaluation, formatter, tokenizer)[0] if evaluation else None
        identity = {
            "base_model": {"name": str(self.base_model), "path": str(base), "sha256": base_digest(base)},
            "prompt_fingerprint": formatter.fingerprint,
            "data_sha256": data_digest,
            "config": json.loads(json.dumps(dataclasses.asdict(self.config))),
        }
        if finished := _finished(output, identity):
            return finished

        with quiet_transformers():
            model, recipe = self._load(base, device)
            learning_rate = self.config.learning_rate or learning_rate_for(model.config.hidden_size)
            trainer = build_trainer(
                model,
                tokenizer,
                self.config,
                train_rows,
                evaluation_rows,
                learning_rate=learning_rate,
                work_directory=output,
            )
            started = time.monotonic()
            result = trainer.train()
            seconds = time.monotonic() - started
        if not math.isfinite(result.training_loss):
            raise TrainingError(
                f"the loss became {result.training_loss} after {trainer.state.global_step} steps at a peak rate of "
                f"{learning_rate:.1e}. Lower TrainingConfig.learning_rate."
            )
        trainer.model.save_pretrained(output)
        formatter.save(output)
        tokens = sum(len(row.input_ids) for row in train_rows)
        manifest = write_manifest(
            output,
            AdapterCheckpoint.kind,
            identity
            | {
                "quantization": dataclasses.asdict(recipe) if recipe else None,
                "run": {
                    "records": len(train),
                    "rows": len(train_rows),
                    "tokens_per_epoch": tokens,
                    "tokens_unshared": sum(row_tokens_unshared(row) for row in train_rows),
                    "steps": trainer.state.global_step,
                    "learning_rate": learning_rate,
                    "training_loss": result.training_loss,
                    "seconds": seconds,
                    "tokens_per_second": tokens * self.config.epochs / seconds,
                    "device": device,
                },
                "versions": {name: version(name) for name in _PACKAGES},
            },
        )
        return AdapterCheckpoint(output, manifest)

    def _rows(self, records: Sequence[Record], formatter: PromptFormatter, tokenizer: Any) -> tuple[list[Row], str]:
        """Encode and pack; also the SHA-256 over everything that is learnt from."""
        examples = _encode(records, formatter, tokenizer, self.config.max_sequence_tokens)
        rows = pack(
            examples,
            [record.schema for record in records],
            max_tokens=self.config.max_sequence_tokens,
            share_prefixes=self.config.share_prefixes,
            seed=self.config.seed,
        )
        return rows, hashlib.sha256(json.dumps(examples).encode()).hexdigest()

    def _load(self, base: Path, device: str) -> tuple[Any, QuantizationRecipe | None]:
        """The base model with a fresh adapter, and how its weights were quantised."""
        from peft import LoraConfig, get_peft_model
        from transformers import set_seed

        set_seed(self.config.seed)
        recipe = None
        if self.config.quantization:
            dtype = str(compute_dtype(device)).removeprefix("torch.")
            recipe = QuantizationRecipe(quant_type=self.config.quantization, load_dtype=dtype)
        model = load_causal_lm(base, device, recipe)
        if recipe:
            recipe = recorded(recipe, model)
        targets = self.config.target_modules
        lora = LoraConfig(
            r=self.config.rank,
            lora_alpha=self.config.alpha,
            lora_dropout=self.config.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            bias="none",
            task_type="CAUSAL_LM",
        )
        return get_peft_model(model, lora), recipe


def row_tokens_unshared(row: Row) -> int:
    """Tokens that a row's examples would take without shared stems: the last position of each branch, plus one."""
    ends = {
        (family, branch): position + 1
        for family, branch, position in zip(row.families, row.branches, row.positions, strict=True)
        if branch
    }
    return sum(ends.values())


def _encode(records: Sequence[Record], formatter: PromptFormatter, tokenizer: Any, max_tokens: int) -> list[Encoded]:
    """Encode records, refusing those that cannot be learnt from.

    Raises:
        RecordError: there are no records, some have no SQL, or some are longer than a row.
    """
    if not records:
        raise RecordError("there are no records to train on")
    without = [_name(records, index) for index, record in enumerate(records) if record.sql is None]
    if without:
        raise RecordError(f"{len(without)} records have no sql to learn: {', '.join(without[:5])} …")
    examples = formatter.encode_all(records, tokenizer)
    long = [index for index, example in enumerate(examples) if len(example.input_ids) > max_tokens]
    if long:
        worst = max(long, key=lambda index: len(examples[index].input_ids))
        raise RecordError(
            f"{len(long)} of {len(records)} records are longer than max_sequence_tokens={max_tokens}; the longest is "
            f"{_name(records, worst)} with {len(examples[worst].input_ids)} tokens. Nothing is cut silently: raise "
            "max_sequence_tokens, shorten the schemas, or leave those records out."
        )
    return examples


def _name(records: Sequence[Record], index: int) -> str:
    return records[index].id or f"record {index}"


def _finished(output: Path, identity: dict[str, Any]) -> AdapterCheckpoint | None:
    """The finished adapter of the same inputs, if it is there; an unfinished run's leftovers are removed.

    Raises:
        TrainingError: the directory holds another finished adapter, or files that no training run wrote.
    """
    if (output / MANIFEST).is_file():
        adapter = AdapterCheckpoint.load(output)
        differing = [key for key, value in identity.items() if adapter.manifest.provenance.get(key) != value]
        if not differing:
            return adapter
        raise TrainingError(
            f"{output} already holds a finished adapter that differs in {', '.join(differing)}. "
            "Choose another output_dir, or delete it."
        )
    marker = output / ".training"
    if output.is_dir() and any(output.iterdir()):
        if not marker.is_file():
            raise TrainingError(f"{output} holds files that no training run wrote. Choose an empty output_dir.")
        shutil.rmtree(output)
    output.mkdir(parents=True, exist_ok=True)
    marker.touch()
    return None
