"""TRL's SFTTrainer over packed rows, with the loss on the answers only."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.prompt import IGNORED_LABEL
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.packing import Row
from sqlquarry.training.progress import progress_callback

if TYPE_CHECKING:
    import torch


def collate(rows: Sequence[Mapping[str, Any]]) -> dict[str, torch.Tensor]:
    """One row as the model's inputs, all (1, tokens), the mask (1, 1, tokens, tokens)."""
    import torch

    (columns,) = rows  # several rows would have to be padded; gradients are accumulated instead
    row = Row(**columns)
    return {
        "input_ids": torch.tensor([row.input_ids]),
        "labels": torch.tensor([row.labels]),
        "position_ids": torch.tensor([row.positions]),
        "attention_mask": row.attention_mask(),
    }


def answer_loss(model: Any, inputs: dict[str, torch.Tensor], answer_tokens: torch.Tensor | int | None) -> torch.Tensor:
    """Mean cross-entropy over answer tokens, in float32; logits are made for those tokens only.

    Args:
        model: a causal language model that knows `logits_to_keep`.
        inputs: one row as `collate` gives it.
        answer_tokens: divide by this instead of the row's own count, so that accumulated rows weigh by their tokens.
    """
    import torch

    inputs = dict(inputs)
    labels = inputs.pop("labels")[0]
    # A token is predicted from the one before it, which lies in the same example: an answer never begins a branch.
    targets = (labels != IGNORED_LABEL).nonzero().flatten()
    logits = model(**inputs, logits_to_keep=targets - 1, use_cache=False).logits[0]
    loss = torch.nn.functional.cross_entropy(logits.float(), labels[targets], reduction="sum")
    return loss / (len(targets) if answer_tokens is None else answer_tokens)


def build_trainer(
    model: Any,
    tokenizer: Any,
    config: TrainingConfig,
    train_rows: Sequence[Row],
    evaluation_rows: Sequence[Row] | None,
    *,
    learning_rate: float,
    work_directory: Path,
) -> Any:
    """An SFTTrainer that is ready to train `model` (already a PEFT model) on packed rows."""
    import torch
    from transformers import PrinterCallback
    from trl import SFTConfig, SFTTrainer

    class _PackedTrainer(SFTTrainer):  # type: ignore[misc]  # its types are not followed
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            if return_outputs:
                raise ValueError("packed training gives a loss and no logits")
            return answer_loss(model, inputs, num_items_in_batch)

    cuda = model.device.type == "cuda"
    records = sum(row.records for row in train_rows)
    rows_per_step = min(len(train_rows), max(1, round(config.records_per_step * len(train_rows) / records)))
    checkpointing = cuda if config.gradient_checkpointing is None else config.gradient_checkpointing
    trainer = _PackedTrainer(
        model=model,
        processing_class=tokenizer,
        train_dataset=_dataset(train_rows),
        eval_dataset=_dataset(evaluation_rows) if evaluation_rows else None,
        data_collator=collate,
        callbacks=[progress_callback(train_rows, work_directory / "training_log.jsonl")],
        args=SFTConfig(
            output_dir=str(work_directory),
            use_cpu=not cuda,
            bf16=cuda,
            per_device_train_batch_size=1,
            per_device_eval_batch_size=1,
            gradient_accumulation_steps=rows_per_step,
            num_train_epochs=config.epochs,
            learning_rate=learning_rate,
            lr_scheduler_type="cosine",
            warmup_steps=config.warmup_share,  # below 1 it is a share of all steps (transformers 5)
            max_grad_norm=config.max_gradient_norm,
            optim="adamw_torch",
            gradient_checkpointing=checkpointing,
            seed=config.seed,
            data_seed=config.seed,
            eval_strategy="epoch" if evaluation_rows else "no",
            prediction_loss_only=True,
            save_strategy="no",
            logging_steps=1,
            disable_tqdm=True,
            report_to=[],
            remove_unused_columns=False,
            dataset_kwargs={"skip_prepare_dataset": True},
            max_length=None,
        ),
    )
    trainer.remove_callback(PrinterCallback)  # prints every log line between the progress bar's
    # TRL casts a QLoRA adapter to bfloat16, whose 8 bits swallow small updates; float32 costs a few megabytes.
    for parameter in trainer.model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)
    return trainer


def _dataset(rows: Sequence[Row]) -> Any:
    from datasets import Dataset

    return Dataset.from_list([dataclasses.asdict(row) for row in rows])
