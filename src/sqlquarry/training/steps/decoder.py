"""Change how the decoder's layers run: compute LoRA updates directly, compile layers and recompute activations.

Results stay the same as with PEFT and transformers. All changes are made before the model is sharded.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from peft import PeftModel
    from peft.tuners.lora import Linear as LoraLinear
    from torch import nn


def run_lora_directly(model: PeftModel) -> None:
    """Make each LoRA layer of a PEFT model compute y = W x + B (s · A x) instead of running PEFT's general code.

    PEFT casts the inputs to the adapter's float32, and scales, copies and adds complete outputs. This code scales only
    the `rank` columns between A and B, and a compiled layer adds the outputs in its next kernel. Adapter weights are
    float32 and are multiplied in the inputs' dtype, as with autocast.
    """
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    for layer in model.modules():
        # Routers and experts are not linear layers. PEFT adapts them by adding to the weight itself.
        if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper):
            kind: type = type(layer)
            layer.__class__ = _with_forward(kind, _lora_linear)


def run_gathered_weights(model: PeftModel) -> None:
    """Make 4-bit layers, whose weights FSDP2 will gather, do nothing but multiply.

    FSDP2 gathers a plain parameter. In each call, bitsandbytes' forward pass would convert it to a 4-bit parameter
    again. torch.compile cannot trace that conversion, so it would compile each layer in several pieces.
    """
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.quant_state = layer.weight.quant_state  # None until weights are loaded
            layer.__class__ = _with_forward(Linear4bit, _packed_linear)


@functools.cache
def _with_forward(kind: type, forward: Callable[..., torch.Tensor]) -> type:
    """Return a subclass with this forward pass. A function on each instance would make torch compile every layer."""
    return type(f"Direct{kind.__name__}", (kind,), {"forward": forward})


def _packed_linear(layer: nn.Module, inputs: torch.Tensor) -> torch.Tensor:
    import bitsandbytes

    outputs: torch.Tensor = bitsandbytes.matmul_4bit(
        inputs, layer.weight, bias=layer.bias, quant_state=layer.quant_state
    )
    return outputs


def _lora_linear(layer: LoraLinear, inputs: torch.Tensor) -> torch.Tensor:
    import torch

    (name,) = layer.active_adapters
    down, up = layer.lora_A[name].weight.to(inputs.dtype), layer.lora_B[name].weight.to(inputs.dtype)
    between = torch.nn.functional.linear(layer.lora_dropout[name](inputs), down) * layer.scaling[name]
    outputs: torch.Tensor = layer.base_layer(inputs) + torch.nn.functional.linear(between, up)
    return outputs


def compile_options() -> dict[str, str | int | bool | Callable[..., object]]:
    """Return options for torch.compile.

    With them, kernels are not chosen by timing, so runs repeat bit for bit, and dropout draws the same random numbers
    as in uncompiled code.
    """
    import torch

    known = torch._inductor.list_options()  # noqa: SLF001 - documented with torch.compile
    return {name: True for name in ("deterministic", "fallback_random") if name in known}


def run_layers(model: PeftModel, *, compiled: bool, recomputed: int, random: bool) -> None:
    """Compile the forward pass of the decoder layers, and recompute the activations of some in the backward pass.

    All layers are the same code with different weights, so torch compiles only once. Recomputation wraps the compiled
    code, but runs inside FSDP2's hooks, so gathered weights are available both times.

    Args:
        model: a PEFT model.
        compiled: whether to compile the layers.
        recomputed: number of layers to recompute, counted from the first.
        random: whether there is dropout. Recomputing it saves and restores the state of the random generator.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    if compiled:
        torch.compiler.reset()  # torch keeps only a few compilations per function for the lifetime of a process
        compile_layer = functools.partial(torch.compile, dynamic=False, options=compile_options())
    for number, layer in enumerate(model.get_base_model().model.layers):
        forward = layer.forward
        if compiled:
            forward = compile_layer(forward)
        if number < recomputed:
            forward = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=random)
        layer.forward = forward
