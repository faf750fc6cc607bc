"""TRL's trainer without the faults that change what is learned, and the adapter that it has trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.errors import ConfigError
from sqlquarry.text import visible_logger
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.world import World

if TYPE_CHECKING:
    import torch
    from datasets import Dataset
    from peft import PeftModel
    from transformers import PreTrainedTokenizerFast
    from trl import SFTConfig, SFTTrainer

logger = visible_logger(__name__)


def exact_trainer(
    model: PeftModel,
    arguments: SFTConfig,
    *,
    train: Dataset,
    evaluation: Dataset | None,
    tokenizer: PreTrainedTokenizerFast,
    callbacks: Sequence[object],
) -> SFTTrainer:
    """Return a trainer that resumes exactly.

    Raises:
        ConfigError: TRL refuses a combination of options.
    """
    from trl import SFTTrainer

    class ExactTrainer(SFTTrainer):  # type: ignore[misc]  # TRL has no types
        def create_model_card(self, *_: object, **__: object) -> None:
            """Write no card beside the checkpoints. The adapter gets ours."""

        def _load_from_checkpoint(self, checkpoint: str, model: object = None) -> None:
            # PEFT loads the adapter as float32, and Adam's moments get the dtype of the adapter.
            before = {name: value.dtype for name, value in self.model.named_parameters() if value.requires_grad}
            super()._load_from_checkpoint(checkpoint, model)
            for name, parameter in self.model.named_parameters():
                if name in before:
                    parameter.data = parameter.data.to(before[name])

    try:
        return ExactTrainer(
            model=model,
            args=arguments,
            train_dataset=train,
            eval_dataset=evaluation,
            processing_class=tokenizer,
            callbacks=callbacks,
        )
    except (ValueError, ImportError) as error:
        raise ConfigError(f"TRL refuses this run: {error}") from error


def keep_precision(trainer: SFTTrainer, adapter: Mapping[str, torch.Tensor]) -> None:
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


def check_sharding(trainer: SFTTrainer, config: TrainingConfig, world: World) -> bool:
    """Return whether accelerate shards the base. On CPUs, it silently uses DDP instead of FSDP.

    Raises:
        ConfigError: the base is not sharded although `sharding` is "full".
    """
    if config.shard_group_size(world.size, world.machines) == 1 or trainer.is_fsdp_enabled:
        return bool(trainer.is_fsdp_enabled)
    message = (
        f"accelerate does not shard the base model on {world.device.type.upper()}s and uses DDP, so each of the "
        f"{world.size} processes has a complete base"
    )
    if config.sharding != "auto":
        raise ConfigError(f'{message}. Set sharding="none", or backend="sqlquarry".')
    if world.is_rank0:
        logger.warning("%s.", message)
    return False


def save_adapter(trainer: SFTTrainer, output: Path, world: World) -> None:
    """Write the adapter's two files on rank 0."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    state = None
    if trainer.is_fsdp_enabled:
        from torch.distributed.checkpoint.state_dict import StateDictOptions, get_model_state_dict

        # Trainer.save_model would also gather the base.
        options = StateDictOptions(full_state_dict=True, cpu_offload=True, ignore_frozen_params=True)
        state = get_model_state_dict(trainer.model, options=options)
    if world.is_rank0:
        model.save_pretrained(output, state_dict=state)
