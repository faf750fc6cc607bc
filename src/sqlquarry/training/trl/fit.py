"""Train with TRL's SFTTrainer: the same base, examples and files as our own engine, with TRL's steps."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.errors import ConfigError, TrainingError, TrainingInterruptedError
from sqlquarry.pretrained import load_tokenizer, quiet_transformers
from sqlquarry.progress.bar import phase
from sqlquarry.prompt import IGNORED_LABEL, Encoded
from sqlquarry.text import visible_logger
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.adapted_model import load_base, lora_config
from sqlquarry.training.steps.loop import Outcome
from sqlquarry.training.steps.signals import stop_signals
from sqlquarry.training.steps.world import World
from sqlquarry.training.trl.arguments import sft_arguments, sft_fields
from sqlquarry.training.trl.callback import Logs, RunEvents, seconds_of
from sqlquarry.training.trl.checkpoints import TrainerCheckpoints

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from trl import SFTTrainer

    from sqlquarry.quantization import QuantizationRecipe

logger = visible_logger(__name__)


@dataclass(frozen=True, slots=True)
class TRLFit:
    """The result of a run with TRL.

    Args:
        outcome: steps, mean loss and seconds.
        recipe: recipe of the quantized weights, or None.
        row_sizes: tokens and learned tokens of each row that TRL made.
        backend: facts for the manifest.
    """

    outcome: Outcome
    recipe: QuantizationRecipe | None
    row_sizes: tuple[tuple[int, int], ...]
    backend: dict[str, object]


def fit(
    base: Path,
    config: TrainingConfig,
    world: World,
    *,
    train: Sequence[Encoded],
    evaluation: Sequence[Encoded],
    rows_per_step: int,
    rate: float,
    output: Path,
    checkpoints: TrainerCheckpoints,
    open_logs: Logs,
    callbacks: Sequence[object] = (),
) -> TRLFit:
    """Train from the newest checkpoint to the end, and save the adapter's two files on rank 0.

    Args:
        base: the base model's directory.
        config: the run's configuration.
        world: the processes.
        train: encoded records.
        evaluation: encoded records whose loss is reported. May be empty.
        rows_per_step: rows in one optimizer step, unless `sft_config` has another number.
        rate: peak learning rate.
        output: the adapter's directory.
        checkpoints: the run's checkpoints.
        open_logs: opens the loggers for a number of steps.
        callbacks: transformers' callbacks of the user.

    Raises:
        ConfigError: `sft_config` or `callbacks` is invalid, or the processes cannot share the base.
        TrainingError: the loss is not a finite number, or a checkpoint does not fit.
        TrainingInterruptedError: SIGTERM or SIGINT was received. The step was finished and a checkpoint written.
    """
    from peft import get_peft_model
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    fields = sft_fields(config, world, rows_per_step=rows_per_step, rate=rate)
    arguments = sft_arguments(fields, str(checkpoints.place))
    how = f", {config.quantization}" if config.quantization else ""
    attention = "flex_attention" if config.attn_implementation == "flex_attention" else "sdpa"
    with phase(f"loading the base model{how}"), quiet_transformers():
        complete, recipe = load_base(base, config, world, attn_implementation=attention)
        set_seed(config.seed)  # the same adapter on every process, and in our own engine
        model = get_peft_model(complete, lora_config(complete, config))
    with contextlib.ExitStack() as held, quiet_transformers():
        stopped = held.enter_context(stop_signals())
        events = RunEvents(
            config,
            world,
            checkpoints,
            evaluates=bool(evaluation) and "eval_strategy" not in config.sft_config,
            open_logs=open_logs,
            stopped=stopped,
            held=held,
        )
        exact = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
        with _quiet_datasets(), phase("packing with TRL"):
            trainer = _trainer(
                model=model,
                args=arguments,
                train_dataset=_dataset(train),
                eval_dataset=_dataset(evaluation) if evaluation else None,
                processing_class=load_tokenizer(base),
                callbacks=[events.as_callback(), *_checked(callbacks)],
            )
        trainer.remove_callback(PrinterCallback)  # our log shows the figures
        _keep_precision(trainer, exact)
        _require_sharding(trainer, config, world)
        row_sizes = _row_sizes(trainer.train_dataset, train)
        newest = checkpoints.latest()
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        state = trainer.state
        if stopped and state.global_step < state.max_steps:
            raise TrainingInterruptedError(
                f"a signal stopped the run after step {state.global_step} of {state.max_steps}. The same call resumes "
                f"from {checkpoints.place}."
            )
        _save(trainer, output, world)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    outcome = Outcome(state.global_step, sum(losses) / len(losses), seconds_of(state.log_history))
    return TRLFit(outcome, recipe, row_sizes, {"name": "trl", "version": version("trl"), "sft_config": fields})


def _checked(callbacks: Sequence[object]) -> Sequence[object]:
    """Return the user's callbacks.

    Raises:
        ConfigError: one is not a `TrainerCallback` or a class of them.
    """
    from transformers import TrainerCallback

    for one in callbacks:
        if not (issubclass(one, TrainerCallback) if isinstance(one, type) else isinstance(one, TrainerCallback)):
            raise ConfigError(f"callbacks contains {one!r:.80}, which is not a transformers.TrainerCallback.")
    return callbacks


def _dataset(examples: Sequence[Encoded]) -> Dataset:
    """Return a data set with labels. Without them, TRL would learn every token for some combinations of columns."""
    from datasets import Dataset

    return Dataset.from_dict(
        {"input_ids": [one.input_ids for one in examples], "labels": [one.labels for one in examples]}
    )


def _row_sizes(rows: Dataset, examples: Sequence[Encoded]) -> tuple[tuple[int, int], ...]:
    """Return tokens and learned tokens of each row.

    Raises:
        TrainingError: TRL dropped or cut off tokens.
    """
    sizes = tuple((len(row["input_ids"]), sum(label != IGNORED_LABEL for label in row["labels"])) for row in rows)
    expected, there = sum(len(one.input_ids) for one in examples), sum(tokens for tokens, _ in sizes)
    if expected != there:
        raise TrainingError(
            f"TRL kept {there:,} of {expected:,} tokens. Set TrainingConfig.max_length to the longest record."
        )
    return sizes


def _trainer(**options: Any) -> SFTTrainer:
    """Return a trainer that resumes exactly.

    Raises:
        ConfigError: TRL refuses a combination of options.
    """
    from trl import SFTTrainer

    class ExactTrainer(SFTTrainer):  # type: ignore[misc]  # TRL has no types
        def create_model_card(self, *_: Any, **__: Any) -> None:
            """Write no card beside the checkpoints. The adapter gets ours."""

        def _load_from_checkpoint(self, *arguments: Any, **options: Any) -> None:
            # PEFT loads the adapter as float32, and Adam's moments get the dtype of the adapter.
            before = {name: value.dtype for name, value in self.model.named_parameters() if value.requires_grad}
            super()._load_from_checkpoint(*arguments, **options)
            for name, parameter in self.model.named_parameters():
                if name in before:
                    parameter.data = parameter.data.to(before[name])

    try:
        return ExactTrainer(**options)
    except (ValueError, ImportError) as error:
        raise ConfigError(f"TRL refuses this run: {error}") from error


def _keep_precision(trainer: SFTTrainer, adapter: Mapping[str, torch.Tensor]) -> None:
    """Undo two roundings to bfloat16.

    Args:
        trainer: the trainer.
        adapter: the adapter from before the trainer was created, in float32.
    """
    import torch

    # TRL rounds the adapter of a 4-bit base to bfloat16, even if the run computes in float32.
    if not trainer.args.bf16:
        for name, parameter in trainer.model.named_parameters():
            if name in adapter:
                parameter.data = adapter[name]
    if trainer.is_fsdp_enabled:
        from torch.distributed.fsdp import MixedPrecisionPolicy

        # accelerate's own policy rounds the loss to bfloat16, and converts 4-bit weights that are stored as float32.
        # Without it, a 4-bit base computes in the dtype of its other weights.
        packed = any(hasattr(parameter, "quant_state") for parameter in trainer.model.parameters())
        cast = torch.bfloat16 if trainer.args.bf16 and not packed else None
        policy = MixedPrecisionPolicy(param_dtype=cast, reduce_dtype=torch.float32)
        trainer.accelerator.state.fsdp_plugin.mixed_precision_policy = policy


def _require_sharding(trainer: SFTTrainer, config: TrainingConfig, world: World) -> None:
    """Check that accelerate shards the base. On CPUs, it silently uses DDP instead of FSDP.

    Raises:
        ConfigError: the base is not sharded although `sharding` is "full".
    """
    if config.shard_group_size(world.size, world.machines) == 1 or trainer.is_fsdp_enabled:
        return
    message = (
        f"accelerate does not shard the base model on {world.device.type.upper()}s and uses DDP, so each of the "
        f"{world.size} processes has a complete base"
    )
    if config.sharding != "auto":
        raise ConfigError(f'{message}. Set sharding="none", or backend="sqlquarry".')
    logger.warning("%s.", message)


def _save(trainer: SFTTrainer, output: Path, world: World) -> None:
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = None
    if trainer.is_fsdp_enabled:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        # Trainer.save_model would also gather the base.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        state = get_model_state_dict(trainer.model, options=options)
    if world.is_rank0:
        model.save_pretrained(output, state_dict=state)


@contextlib.contextmanager
def _quiet_datasets() -> Iterator[None]:
    import datasets

    hidden = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not hidden:
            datasets.enable_progress_bars()
