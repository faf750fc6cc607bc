"""Convert a TrainingConfig to the fields of TRL's SFTConfig."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING

from sqlquarry.errors import ConfigError, MissingExtraError
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.world import World

if TYPE_CHECKING:
    from trl import SFTConfig


def sft_fields(config: TrainingConfig, world: World, *, rows_per_step: int, rate: float) -> dict[str, object]:
    """Return all fields of SFTConfig that a run sets, except its directory.

    Args:
        config: the run's configuration. Its `sft_config` replaces our choices.
        world: the processes.
        rows_per_step: rows in one optimizer step, unless `sft_config` has another number.
        rate: peak learning rate.
    """
    cuda = world.device.type == "cuda"
    batch = int(str(config.sft_config.get("per_device_train_batch_size", 1)))
    chosen: dict[str, object] = {
        "bf16": cuda,  # the default of SFTConfig fails on a CPU
        "tf32": True if cuda else None,
        "packing": True,
        "per_device_train_batch_size": batch,
        "per_device_eval_batch_size": batch,
        "gradient_accumulation_steps": max(1, round(rows_per_step / (batch * world.size))),
        "lr_scheduler_type": "cosine",
        "optim": "adamw_torch",
        "eval_strategy": "no",  # `callback` evaluates after each epoch
        "prediction_loss_only": True,
    }
    ours: dict[str, object] = {
        "num_train_epochs": config.num_train_epochs,
        "max_length": config.max_length,
        "learning_rate": rate,
        "warmup_steps": config.warmup_ratio,  # below 1, it is a share of the steps
        "max_grad_norm": config.max_grad_norm,
        "gradient_checkpointing": config.recomputed_layers(1, cuda=cuda) > 0,
        "torch_compile": config.torch_compile is True,
        "use_cpu": not cuda,
        "seed": config.seed,
        "data_seed": config.seed,
        "save_strategy": "steps" if config.save_steps else "no",  # without it, `callbacks` saves by time
        "save_steps": config.save_steps or 500,
        "save_total_limit": config.save_total_limit,
        "report_to": "none",  # our own reporter sends the figures
        "logging_steps": 1,
        "logging_nan_inf_filter": False,  # it would hide a loss that is not a number behind an average
        "disable_tqdm": True,
    }
    return chosen | dict(config.sft_config) | ours | _fsdp(config, world)


def sft_arguments(fields: Mapping[str, object], directory: str) -> SFTConfig:
    """Return the SFTConfig with these fields.

    Raises:
        ConfigError: SFTConfig refuses a value.
    """
    from trl import SFTConfig

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # SFTConfig warns of one of its own defaults
            arguments = SFTConfig(output_dir=directory, **fields)
    except (TypeError, ValueError, ImportError) as error:
        raise ConfigError(f"SFTConfig refuses a field of sft_config: {error}") from error
    arguments._n_gpu = min(arguments.n_gpu, 1)  # noqa: SLF001 - one process would use all GPUs, which TRL refuses
    return arguments


def check_trl(config: TrainingConfig, world: World, callbacks: Sequence[object], *, evaluates: bool) -> None:
    """Check what only the libraries can check, before the base is downloaded and hashed.

    Args:
        config: the run's configuration.
        world: the processes.
        callbacks: what the user gave.
        evaluates: whether there are evaluation records.

    Raises:
        ConfigError: SFTConfig refuses a value, one of the callbacks is not a `TrainerCallback` or a class of them, or
            what a callback or field needs is missing.
        MissingExtraError: liger-kernel is chosen but not installed.
    """
    from transformers import EarlyStoppingCallback, TrainerCallback

    for one in callbacks:
        if not (issubclass(one, TrainerCallback) if isinstance(one, type) else isinstance(one, TrainerCallback)):
            raise ConfigError(f"callbacks contains {one!r:.80}, which is not a transformers.TrainerCallback.")
    arguments = sft_arguments(sft_fields(config, world, rows_per_step=1, rate=1e-4), "unused")
    if arguments.eval_strategy != "no" and not evaluates:
        raise ConfigError(f"sft_config has eval_strategy={arguments.eval_strategy.value!r}. Give evaluation records.")
    stops = any(one is EarlyStoppingCallback or isinstance(one, EarlyStoppingCallback) for one in callbacks)
    if stops and (arguments.eval_strategy == "no" or not arguments.metric_for_best_model):
        raise ConfigError(
            'EarlyStoppingCallback needs evaluation records and the fields {"eval_strategy": "steps", "eval_steps": '
            '…, "metric_for_best_model": "eval_loss", "greater_is_better": False} in sft_config.'
        )
    if arguments.use_liger_kernel and find_spec("liger_kernel") is None:
        raise MissingExtraError(
            "sft_config has use_liger_kernel=True, which needs liger-kernel. Run: pip install liger-kernel",
            name="liger_kernel",
        )


def _fsdp(config: TrainingConfig, world: World) -> dict[str, object]:
    if config.shard_group_size(world.size, world.machines) == 1:
        return {}
    fsdp = {
        "version": 2,
        # With SHARDED_STATE_DICT, checkpoints would contain no adapter.
        "state_dict_type": "FULL_STATE_DICT",
        "auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
        "cpu_offload": config.cpu_offload,
    }
    return {"fsdp": True, "fsdp_config": fsdp}
