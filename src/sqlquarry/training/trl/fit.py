"""Train with TRL's SFTTrainer: the same base, examples and files as our own engine, with TRL's steps."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.errors import TrainingInterruptedError
from sqlquarry.pretrained import load_tokenizer, quiet_transformers
from sqlquarry.progress.bar import phase
from sqlquarry.tokenizing.encoded import Encoded
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.adapted_model import load_base, lora_config
from sqlquarry.training.steps.loop import Outcome
from sqlquarry.training.steps.signals import stop_signals
from sqlquarry.training.steps.world import World
from sqlquarry.training.trl.arguments import sft_arguments, sft_fields
from sqlquarry.training.trl.callback import Logs, RunEvents, seconds_of
from sqlquarry.training.trl.checkpoints import TrainerCheckpoints
from sqlquarry.training.trl.exact_trainer import check_sharding, exact_trainer, keep_precision, save_adapter
from sqlquarry.training.trl.rows import as_dataset, quiet_datasets, row_sizes_of

if TYPE_CHECKING:
    from sqlquarry.quantization import QuantizationRecipe


@dataclass(frozen=True, slots=True)
class TRLFit:
    """The result of a run with TRL.

    Args:
        outcome: steps, mean loss and seconds.
        recipe: recipe of the quantized weights, or None.
        row_sizes: tokens and learned tokens of each row that TRL made.
        is_sharded: whether the processes shared the base.
        backend: facts for the manifest.
    """

    outcome: Outcome
    recipe: QuantizationRecipe | None
    row_sizes: tuple[tuple[int, int], ...]
    is_sharded: bool
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
        ConfigError: TRL refuses the run, or the processes cannot share the base.
        TrainingError: the loss is not a finite number, or a checkpoint does not fit.
        TrainingInterruptedError: SIGTERM or SIGINT was received. The step was finished and a checkpoint written.
    """
    from peft import get_peft_model
    from transformers import set_seed
    from transformers.trainer_callback import PrinterCallback

    fields = sft_fields(config, world, rows_per_step=rows_per_step, rate=rate)
    arguments = sft_arguments(fields, str(checkpoints.place))
    newest = checkpoints.latest()
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
        with quiet_datasets(), phase("packing with TRL"):
            trainer = exact_trainer(
                model,
                arguments,
                train=as_dataset(train),
                evaluation=as_dataset(evaluation) if evaluation else None,
                tokenizer=load_tokenizer(base),
                callbacks=[events.as_callback(), *callbacks],
            )
        trainer.remove_callback(PrinterCallback)  # our log shows the figures
        keep_precision(trainer, exact)
        is_sharded = check_sharding(trainer, config, world)
        row_sizes = row_sizes_of(trainer.train_dataset, train)
        trainer.train(resume_from_checkpoint=str(newest) if newest else None)
        state = trainer.state
        if stopped and state.global_step < state.max_steps:
            raise TrainingInterruptedError(
                f"a signal stopped the run after step {state.global_step} of {state.max_steps}. The same call resumes "
                f"from {checkpoints.place}."
            )
        save_adapter(trainer, output, world)
    losses = [entry["loss"] for entry in state.log_history if "loss" in entry]
    outcome = Outcome(state.global_step, sum(losses) / len(losses), seconds_of(state.log_history))
    return TRLFit(
        outcome, recipe, row_sizes, is_sharded, {"name": "trl", "version": version("trl"), "sft_config": fields}
    )
