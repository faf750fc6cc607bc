"""Load the base model for a run and add the adapter to train."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.models.local.token_rows import run_token_rows_directly
from sqlquarry.pretrained import compute_dtype, load_causal_lm
from sqlquarry.quantization import QuantizationRecipe, hold_dequantized
from sqlquarry.text import visible_logger
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.decoder import run_gathered_weights, run_layers, run_lora_directly
from sqlquarry.training.steps.meta_loading import MetaLoadedBase
from sqlquarry.training.steps.sharding import shard_base
from sqlquarry.training.steps.world import World

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel
    from torch import nn
    from transformers import PreTrainedModel

logger = visible_logger(__name__)


def load_trainable(
    base: Path, config: TrainingConfig, world: World, *, trained_rows: Sequence[int] = ()
) -> tuple[PeftModel, QuantizationRecipe | None]:
    """Load a base model from disk and add an adapter (see `make_trainable`).

    Return the model and the recipe of its quantized weights, or None if they are not quantized.
    """
    if config.shard_group_size(world.size, world.machines) > 1:
        recipe, attn_implementation = _recipe(config, world), _attention(config, world)
        held = config.hold_dequantized is True
        loaded = MetaLoadedBase(base, world.device, recipe, held=held, attn_implementation=attn_implementation)
        if not loaded.missing:
            model = make_trainable(loaded.model, config, world, fill=loaded.fill)
            return model, loaded.recorded()
        logger.warning(
            "The base model's files lack %s, so each process loads the complete base model before sharding it.",
            loaded.missing[0],
        )
    complete, recipe = load_base(base, config, world, attn_implementation=_attention(config, world))
    return make_trainable(complete, config, world, trained_rows=trained_rows), recipe


def load_base(
    base: Path, config: TrainingConfig, world: World, *, attn_implementation: str
) -> tuple[PreTrainedModel, QuantizationRecipe | None]:
    """Load the complete base onto the device of this process. Return it and the recipe of its quantized weights."""
    recipe = _recipe(config, world)
    model = load_causal_lm(base, str(world.device), recipe, attention=attn_implementation)
    if recipe:
        recipe = recipe.completed(model)
        if config.hold_dequantized is True:
            model = hold_dequantized(model, compute_dtype(world.device.type))
    return model, recipe


def _recipe(config: TrainingConfig, world: World) -> QuantizationRecipe | None:
    if not config.quantization:
        return None
    dtype = str(compute_dtype(world.device.type)).removeprefix("torch.")
    return QuantizationRecipe(quant_type=config.quantization, load_dtype=dtype)


def _attention(config: TrainingConfig, world: World) -> str:
    return "flex_attention" if config.uses_flex_attention(cuda=world.device.type == "cuda") else "sdpa"


def make_trainable(
    model: PreTrainedModel,
    config: TrainingConfig,
    world: World,
    *,
    fill: Callable[[nn.Module], None] | None = None,
    trained_rows: Sequence[int] = (),
) -> PeftModel:
    """Return a PEFT model with a new float32 adapter, the same on every process. Shard the base if processes share it.

    Args:
        model: the base.
        config: the run's configuration.
        world: the processes.
        fill: loads the weights of a part of a shared base. None if they are already loaded.
        trained_rows: tokens whose rows of embeddings and head are trained. Only for a base that is not shared.
    """
    import torch
    from peft import get_peft_model
    from transformers import set_seed

    set_seed(config.seed)  # the same adapter on every process
    adapted: PeftModel = get_peft_model(model, lora_config(model, config, trained_rows))
    # The 8 bits of bfloat16 would lose small updates. float32 takes only 0.17 GB for rank 16 on an 8B model.
    for parameter in adapted.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(world.device, torch.float32)
    cuda = world.device.type == "cuda"
    run_lora_directly(adapted)
    run_token_rows_directly(adapted)
    run_layers(
        adapted,
        compiled=config.compiles_layers(cuda=cuda),
        recomputed=config.recomputed_layers(adapted.config.num_hidden_layers, cuda=cuda),
        random=config.lora_dropout > 0,
    )
    group_size = config.shard_group_size(world.size, world.machines)
    if group_size > 1:
        run_gathered_weights(adapted)
        shard_base(adapted, world, shard_group_size=group_size, cpu_offload=config.cpu_offload, fill=fill)
    return adapted.train()


def lora_config(model: PreTrainedModel, config: TrainingConfig, trained_rows: Sequence[int] = ()) -> LoraConfig:
    """Return PEFT's configuration of the adapter. The rows of the tokens `trained_rows` are trained too."""
    from peft import LoraConfig

    targets = config.target_modules
    return LoraConfig(
        r=config.lora_r,
        lora_alpha=config.lora_alpha,
        lora_dropout=config.lora_dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
        trainable_token_indices=_token_indices(model, trained_rows),
    )


def _token_indices(model: PreTrainedModel, rows: Sequence[int]) -> dict[str, list[int]] | None:
    """Return PEFT's `trainable_token_indices`. If embeddings and head are one matrix, PEFT trains one row for both."""
    ends = ["embed_tokens"] if model.config.tie_word_embeddings else ["embed_tokens", "lm_head"]
    return {name: list(rows) for name in ends} if rows else None
