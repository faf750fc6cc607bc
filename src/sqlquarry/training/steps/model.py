"""The base model as a run holds it, and the adapter that is trained on it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from sqlquarry.models.local.token_rows import run_token_rows_directly
from sqlquarry.pretrained import compute_dtype, load_causal_lm
from sqlquarry.quantization import QuantizationRecipe, hold_dequantized
from sqlquarry.text import visible_logger
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.steps.decoder import run_gathered_weights, run_layers, run_lora_directly
from sqlquarry.training.steps.meta_loading import HollowBase
from sqlquarry.training.steps.sharding import shard_base
from sqlquarry.training.steps.world import World

logger = visible_logger(__name__)


def load_trainable(
    base: Path, config: TrainingConfig, world: World, *, trained_rows: Sequence[int] = ()
) -> tuple[Any, QuantizationRecipe | None]:
    """The model of `make_trainable` on a base from disk, and how its weights were quantised (None: they were not)."""
    kind = world.device.type
    recipe = None
    if config.quantization:
        dtype = str(compute_dtype(kind)).removeprefix("torch.")
        recipe = QuantizationRecipe(quant_type=config.quantization, load_dtype=dtype)
    attention = "flex_attention" if config.uses_flex(cuda=kind == "cuda") else "sdpa"
    held = bool(config.hold_dequantized)
    if config.sharers(world.size, world.machines) > 1:
        hollow = HollowBase(base, world.device, recipe, held=held, attention=attention)
        if not hollow.missing:
            model = make_trainable(hollow.model, config, world, fill=hollow.fill)
            return model, hollow.recorded()
        logger.warning("the base holds no %s: each process loads it whole before it is shared", hollow.missing[0])
    model = load_causal_lm(base, str(world.device), recipe, attention=attention)
    if recipe:
        recipe = recipe.completed(model)
        if held:
            model = hold_dequantized(model, compute_dtype(kind))
    return make_trainable(model, config, world, trained_rows=trained_rows), recipe


def make_trainable(
    model: Any,
    config: TrainingConfig,
    world: World,
    *,
    fill: Callable[[Any], None] | None = None,
    trained_rows: Sequence[int] = (),
) -> Any:
    """A PEFT model with a fresh float32 adapter, equal on every process, its base sharded where several share one.

    Args:
        model: the base.
        config: of the run.
        world: the processes.
        fill: reads the weights of a part of a base that is hollow and to be shared.
        trained_rows: tokens whose rows of embeddings and head are trained; of a base that is not shared.
    """
    import torch
    from peft import LoraConfig, get_peft_model
    from transformers import set_seed

    set_seed(config.seed)  # the same adapter on every process
    targets = config.target_modules
    lora = LoraConfig(
        r=config.rank,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
        trainable_token_indices=_token_indices(model, trained_rows),
    )
    model = get_peft_model(model, lora)
    # bfloat16's 8 bits swallow small updates; float32 costs a few megabytes.
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(world.device, torch.float32)
    cuda = world.device.type == "cuda"
    run_lora_directly(model)
    run_token_rows_directly(model)
    run_layers(
        model,
        compiled=config.compiles(cuda=cuda),
        recomputed=config.recomputed(model.config.num_hidden_layers, cuda=cuda),
        random=config.dropout > 0,
    )
    sharers = config.sharers(world.size, world.machines)
    if sharers > 1:
        run_gathered_weights(model)
        shard_base(model, world, sharers=sharers, cpu_offload=config.cpu_offload, fill=fill)
    return model.train()


def _token_indices(model: Any, rows: Sequence[int]) -> dict[str, list[int]] | None:
    """PEFT's `trainable_token_indices`; where embeddings and head are one matrix, it trains one row for both."""
    ends = ["embed_tokens"] if model.config.tie_word_embeddings else ["embed_tokens", "lm_head"]
    return {name: list(rows) for name in ends} if rows else None
