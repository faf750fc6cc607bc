"""How much memory one training process needs at its peak.

The terms follow from what the loop keeps (`loop`, `loss`, transformers' Llama, PEFT, bitsandbytes 0.50); each names
what it counts. The sum was within 5 % of what one and two H100s measured (tests/unit/training/test_training_plan.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass

from sqlquarry.quantization import NESTED_BLOCK
from sqlquarry.training.config import TrainingConfig
from sqlquarry.training.shape import ModelShape

_BLOCK = 64  # weights that share one scale: QuantizationRecipe.block_size
_CUDA_CONTEXT_BYTES = 900_000_000  # driver, kernels and libraries, outside torch's allocator; measured on an H100
_CUDA_WORKSPACE_BYTES = 70_000_000  # cuBLAS, inside it; measured
_CPU_PROCESS_BYTES = 700_000_000  # Python with torch, transformers and PEFT loaded
_CPU_KEPT = 2  # the C library keeps much of what torch frees: SmolLM2-135M, 256 to 1,024 tokens, resident set; rough
_FRAGMENTATION = 1.13  # torch reserved up to 13 % more than it allocated, 8B shape; more for small ones, which fit


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """Bytes of one process at its peak.

    Args:
        weights_4bit: packed linear weights, this process's part.
        scales: block scales of those; whole on every process.
        weights_16bit: everything else, this process's part (32 bits wide on a CPU).
        gathered: sharded weights that are whole for the moment: two layers, embeddings and head.
        adapter: adapter, gradient and Adam's two moments, float32: 16 bytes a parameter, whole on every process.
        activations: what the backward pass needs of the fullest row.
        logits: logits, probabilities and their gradients, of that row's answer tokens.
        mask: the row's dense attention mask; none with flex attention.
        workspace: cuBLAS's, inside torch's allocator.
        process: the CUDA context, outside it; on a CPU Python with its libraries.
    """

    weights_4bit: int
    scales: int
    weights_16bit: int
    gathered: int
    adapter: int
    activations: int
    logits: int
    mask: int
    workspace: int
    process: int

    @property
    def peak(self) -> int:
        """The sum."""
        return sum(dataclasses.asdict(self).values())

    @property
    def allocated(self) -> int:
        """What torch allocates of it: ``torch.cuda.max_memory_allocated()`` of a run."""
        return self.peak - self.process

    @property
    def needed(self) -> int:
        """What a device must have: the peak, and what the allocator loses to fragments."""
        return round(self.allocated * _FRAGMENTATION) + self.process


def forecast_memory(
    shape: ModelShape, config: TrainingConfig, rows: Iterable[tuple[int, int]], *, processes: int = 1, cuda: bool = True
) -> MemoryForecast:
    """The peak of one process.

    Args:
        shape: the base model.
        config: quantisation, recomputation, rank and sharding are read.
        rows: tokens and answer tokens of each packed row.
        processes: processes that share the base.
        cuda: False forecasts a CPU, which computes in float32.
    """
    wide = 2 if cuda else 4  # bytes of a computed element (`quantization.compute_dtype`)
    quantised = shape.linear_parameters if packs_weights(config) else 0
    blocks = math.ceil(quantised / _BLOCK)
    four_bit = math.ceil(quantised / 2)
    scales = blocks + math.ceil(blocks / NESTED_BLOCK) * 4  # one byte each, and a float32 for 256 of them (QLoRA, §3)
    rest = (shape.parameters - quantised) * wide
    gathered = 0
    if processes > 1:
        layer = (four_bit + (shape.linear_parameters - quantised + shape.expert_parameters) * wide) / shape.layers
        gathered = round(2 * layer + shape.other_parameters * wide)
    held = 0 if config.cpu_offload and processes > 1 else 1
    padded = [(computed_tokens(config, tokens, cuda=cuda), answers) for tokens, answers in rows]
    tokens, answers = max(padded, key=lambda row: _kept(shape, config, *row, cuda=cuda), default=(0, 0))
    logits = _logits(shape, answers, cuda=cuda)
    return MemoryForecast(
        weights_4bit=held * math.ceil(four_bit / processes),
        scales=scales,
        weights_16bit=held * math.ceil(rest / processes),
        gathered=gathered,
        adapter=16 * shape.adapter_parameters(config.target_modules, config.rank),
        activations=(_kept(shape, config, tokens, answers, cuda=cuda) - logits) * (1 if cuda else _CPU_KEPT),
        logits=logits,
        # As bool, and as the additive mask that attention makes of it.
        mask=0 if uses_flex(config, cuda=cuda) else tokens * tokens * (1 + wide),
        workspace=_CUDA_WORKSPACE_BYTES if cuda else 0,
        process=_CUDA_CONTEXT_BYTES if cuda else _CPU_PROCESS_BYTES,
    )


def recomputes(config: TrainingConfig, *, cuda: bool) -> bool:
    """Whether activations are recomputed in the backward pass, as the trainer decides it."""
    return cuda if config.gradient_checkpointing is None else config.gradient_checkpointing


def packs_weights(config: TrainingConfig) -> bool:
    """Whether linear weights lie in memory in 4 bits."""
    return config.quantization is not None and not config.hold_dequantized


def uses_flex(config: TrainingConfig, *, cuda: bool) -> bool:
    """Whether attention is torch's flex_attention, as the trainer decides it."""
    return config.attention == "flex" or (config.attention == "auto" and cuda)


def computed_tokens(config: TrainingConfig, tokens: int, *, cuda: bool) -> int:
    """Tokens that a row is computed as: flex_attention's kernel is made for one length, and rows are padded to it."""
    return config.max_sequence_tokens if uses_flex(config, cuda=cuda) else tokens


def layer_bytes_per_token(shape: ModelShape, config: TrainingConfig, *, cuda: bool) -> int:
    """What one decoder layer keeps of each token for its backward pass.

    Two norms keep their input in float32 and their output; attention keeps queries, keys, values and its output; the
    MLP keeps gate, activated gate, up and their product. Layers that are not in 4 bits keep 8 bytes of the hidden width
    more under autocast (PEFT casts their inputs to the adapter's float32 and back): measured.
    """
    wide = 2 if cuda else 4
    norms = 2 * (4 + wide) * shape.hidden
    attention = wide * (2 * shape.attention + 2 * shape.key_value)
    casts = 8 * shape.hidden if cuda and not packs_weights(config) else 0
    return norms + attention + 4 * wide * shape.mlp + casts


def _kept(shape: ModelShape, config: TrainingConfig, tokens: int, answers: int, *, cuda: bool) -> int:
    """Activations and logits at the worse of two moments: where the loss is made, and where a layer goes backwards."""
    wide = 2 if cuda else 4
    layer = layer_bytes_per_token(shape, config, cuda=cuda)
    logits, final_norm = _logits(shape, answers, cuda=cuda), 4 * shape.hidden * tokens
    working = (6 * wide // 2 * shape.mlp + 2 * wide * shape.hidden) * tokens  # gradients on their way through an MLP
    working += wide * max((outputs * inputs for outputs, inputs in shape.linears.values()), default=0)  # dequantised
    if recomputes(config, cuda=cuda):
        inputs = shape.layers * wide * shape.hidden * tokens
        return inputs + max(final_norm + logits, layer * tokens + working)
    return shape.layers * layer * tokens + max(final_norm + logits, working)


def _logits(shape: ModelShape, answers: int, *, cuda: bool) -> int:
    """Log-probabilities and two gradients in float32 at once; on a CPU the float32 logits themselves as well."""
    return (12 if cuda else 16) * shape.vocabulary * answers
