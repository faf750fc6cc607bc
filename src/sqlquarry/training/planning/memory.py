"""Forecast how much memory one training process needs at its peak.

The terms follow from the code of `loop`, `loss`, transformers' Llama, PEFT and bitsandbytes 0.50. For 8B and 70B
shapes, the sum was within 5 % of the measurements on an H200 (tests/unit/training/test_training_plan.py).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from sqlquarry.quantization import NESTED_BLOCK
from sqlquarry.training.base.shape import ModelShape
from sqlquarry.training.config import TrainingConfig

_BLOCK = 64  # weights that share one scale: QuantizationRecipe.block_size
_CUDA_CONTEXT_BYTES = 900_000_000  # driver, kernels and libraries, outside torch's allocator (measured on an H100)
_NCCL_BYTES = 500_000_000  # buffers between GPUs, also outside the allocator (not measured)
_CUDA_WORKSPACE_BYTES = 70_000_000  # cuBLAS, inside the allocator (measured)
_CPU_PROCESS_BYTES = 700_000_000  # Python with torch, transformers and PEFT loaded
# The C library keeps much of the memory that torch frees. Roughly measured as the resident set of SmolLM2-135M with 256
# to 1,024 tokens.
_CPU_KEPT = 2
# torch reserved this much more than it allocated, and 1 to 2 GB more with a CUDA graph (8B, H200).
_FRAGMENTATION = 1.13
_CUDA_FRAGMENTS_BYTES = 1_000_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryForecast:
    """The memory of one process at its peak, in bytes.

    Args:
        weights_4bit: packed linear weights, this process's part.
        scales: block scales of the packed weights, complete on every process.
        weights_16bit: all other weights, this process's part (32 bits wide on a CPU).
        gathered: sharded weights that are complete at one moment: two layers, and embeddings or head.
        adapter: adapter, gradient and Adam's two moments in float32. That is 16 bytes per parameter, on every process.
        activations: activations of the fullest row that the backward pass needs.
        logits: logits, probabilities and their gradients for that row's answer tokens.
        mask: dense attention mask of the row, or 0 with flex attention.
        workspace: cuBLAS's workspace, inside torch's allocator.
        process: the CUDA context, outside torch's allocator. On a CPU, Python with its libraries.
        loading: the base while it is loaded, before anything else is allocated. If processes share it, this is only
            this process's part and the weights that are loaded next.
        evaluation: weights that an evaluation gathers again if rows run as CUDA graphs, whose memory nothing else can
            use.
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
    loading: int
    evaluation: int

    @property
    def training(self) -> int:
        """Memory at the worst moment of a step."""
        fields: dict[str, int] = dataclasses.asdict(self)
        return sum(fields.values()) - self.loading - self.evaluation

    @property
    def peak(self) -> int:
        """The larger of what training needs and what loading needs."""
        return max(self.training, self.loading + self.process)

    @property
    def allocated(self) -> int:
        """Part of the peak that torch allocates: ``torch.cuda.max_memory_allocated()`` of a run."""
        return self.peak - self.process

    @property
    def needed(self) -> int:
        """Memory that a device must have: the peak, an evaluation's memory, and the allocator's fragmentation."""
        fragments = _CUDA_FRAGMENTS_BYTES if self.workspace else 0
        return round(self.allocated * _FRAGMENTATION) + self.evaluation + fragments + self.process


def forecast_memory(
    shape: ModelShape,
    config: TrainingConfig,
    rows: Iterable[tuple[int, int]],
    *,
    processes: int = 1,
    machines: int = 1,
    cuda: bool = True,
) -> MemoryForecast:
    """Forecast the peak of one process.

    Args:
        shape: the base model.
        config: quantization, recomputation, rank and sharding are used.
        rows: tokens and answer tokens of each packed row.
        processes: number of processes on all machines.
        machines: number of machines.
        cuda: False forecasts a CPU, which computes in float32.
    """
    wide = 2 if cuda else 4  # bytes per element (`pretrained.compute_dtype`)
    group_size = config.shard_group_size(processes, machines)
    base = _base_bytes(shape, config, group_size, wide)
    padded = {(computed_tokens(config, tokens, cuda=cuda), answers) for tokens, answers in rows}
    tokens, answers = max(padded, key=lambda row: _kept(shape, config, *row, cuda=cuda), default=(0, 0))
    logits = _logits(shape, config, answers, cuda=cuda)
    return MemoryForecast(
        weights_4bit=base.weights_4bit,
        scales=base.scales,
        weights_16bit=base.weights_16bit,
        gathered=base.gathered,
        adapter=16 * shape.adapter_parameters(config.target_modules, config.lora_r),
        activations=(_kept(shape, config, tokens, answers, cuda=cuda) - logits) * (1 if cuda else _CPU_KEPT),
        logits=logits,
        # The bool mask, and the additive mask that attention computes from it.
        mask=0 if config.uses_flex_attention(cuda=cuda) else tokens * tokens * (1 + wide),
        workspace=_CUDA_WORKSPACE_BYTES if cuda else 0,
        process=(_CUDA_CONTEXT_BYTES + (_NCCL_BYTES if processes > 1 else 0)) if cuda else _CPU_PROCESS_BYTES,
        loading=base.loading,
        evaluation=base.gathered if config.uses_cuda_graphs(cuda=cuda, shard_group_size=group_size) else 0,
    )


class _BaseBytes(NamedTuple):
    """The memory that the base needs, as in `MemoryForecast`."""

    weights_4bit: int
    scales: int
    weights_16bit: int
    gathered: int
    loading: int


def _base_bytes(shape: ModelShape, config: TrainingConfig, group_size: int, wide: int) -> _BaseBytes:
    quantized = shape.linear_parameters if config.holds_4bit_weights else 0
    blocks = math.ceil(quantized / _BLOCK)
    four_bit = math.ceil(quantized / 2)
    scales = blocks + math.ceil(blocks / NESTED_BLOCK) * 4  # one byte each, and a float32 for every 256 (QLoRA, §3)
    rest = (shape.parameters - quantized) * wide
    gathered = 0
    if group_size > 1:
        layer = (four_bit + (shape.linear_parameters - quantized + shape.expert_parameters) * wide) / shape.layers
        gathered = round(2 * layer + shape.vocabulary * shape.hidden * wide)
    resident = 0 if config.cpu_offload and group_size > 1 else 1
    parts = resident * math.ceil(four_bit / group_size), resident * math.ceil(rest / group_size)
    in_parts = group_size > 1 and not shape.expert_parameters  # `MetaLoadedBase`
    loading = scales + (sum(parts) + gathered + wide * shape.largest_linear if in_parts else four_bit + rest)
    return _BaseBytes(parts[0], scales, parts[1], gathered, loading)


def computed_tokens(config: TrainingConfig, tokens: int, *, cuda: bool) -> int:
    """Return the length to which a row is padded. Compiled code supports one length, so all rows are padded to it."""
    fixed = config.uses_flex_attention(cuda=cuda) or config.compiles_layers(cuda=cuda)
    return config.max_length if fixed else tokens


def layer_bytes_per_token(shape: ModelShape, config: TrainingConfig, *, cuda: bool) -> int:
    """Return the bytes per token that one decoder layer keeps for its backward pass.

    Two norms keep their inputs (in float32) and outputs. Attention keeps queries, keys, values and its output. The MLP
    keeps gate, activated gate, up and their product. Compiled layers keep the norms' inputs in their own dtype, and
    compute the activated gate again.
    """
    wide, compiled = 2 if cuda else 4, config.compiles_layers(cuda=cuda)
    norms = 2 * ((wide if compiled else 4) + wide) * shape.hidden
    attention = wide * (2 * shape.attention + 2 * shape.key_value)
    return norms + attention + (3 if compiled else 4) * wide * shape.mlp


def _kept(shape: ModelShape, config: TrainingConfig, tokens: int, answers: int, *, cuda: bool) -> int:
    """Return the bytes of activations and logits at the worse moment: the loss, or the last layer's backward pass."""
    wide = 2 if cuda else 4
    layer = layer_bytes_per_token(shape, config, cuda=cuda)
    recomputed = config.recomputed_layers(shape.layers, cuda=cuda)
    logits, final_norm = _logits(shape, config, answers, cuda=cuda), 4 * shape.hidden * tokens
    working = (6 * wide // 2 * shape.mlp + 2 * wide * shape.hidden) * tokens  # gradients that pass through an MLP
    working += wide * shape.largest_linear  # dequantized weights
    kept = recomputed * wide * shape.hidden * tokens + (shape.layers - recomputed) * layer * tokens
    return kept + max(final_norm + logits, working + (layer * tokens if recomputed == shape.layers else 0))


def _logits(shape: ModelShape, config: TrainingConfig, answers: int, *, cuda: bool) -> int:
    """Return the bytes of logits and their gradients.

    Uncompiled code keeps log-probabilities and two gradients in float32, and on a CPU also the logits.
    """
    if config.compiles_layers(cuda=cuda):
        return (4 if cuda else 8) * shape.vocabulary * answers
    return (12 if cuda else 16) * shape.vocabulary * answers
