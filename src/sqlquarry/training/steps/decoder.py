"""How the decoder's layers run: the adapter's update in two products, layers compiled and recomputed where asked.

What is computed is PEFT's and transformers' model; only how it runs is chosen here, before anything is sharded.
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
    """Let each LoRA layer of a PEFT model compute y = W x + (s · A x) B in place of PEFT's general code.

    PEFT scales and adds whole outputs, copies them, and casts whole inputs to the adapter's float32; here the scale is
    on the `rank` columns between, and compiled layers add where they read next. Adapter weights are float32 and are
    multiplied in the inputs' dtype, as under autocast.
    """
    from peft.tuners.lora.layer import LoraLayer, ParamWrapper

    for layer in model.modules():
        # PEFT adapts routers and experts, which are no linear layers, by adding to the weight itself.
        if isinstance(layer, LoraLayer) and not isinstance(layer, ParamWrapper):
            kind: type = type(layer)
            layer.__class__ = _with_forward(kind, _lora_linear)


def run_gathered_weights(model: PeftModel) -> None:
    """Let 4-bit layers whose weights FSDP2 will gather do nothing but multiply.

    What is gathered is a plain parameter. bitsandbytes' own forward pass makes a 4-bit one of it again, in each call,
    which torch.compile cannot follow: it breaks each layer into pieces.
    """
    from bitsandbytes.nn import Linear4bit

    for layer in model.modules():
        if isinstance(layer, Linear4bit):
            layer.quant_state = layer.weight.quant_state  # None until weights are read
            layer.__class__ = _with_forward(Linear4bit, _packed_linear)


@functools.cache
def _with_forward(kind: type, forward: Callable[..., torch.Tensor]) -> type:
    """Return the class with our forward pass; a function on the instance would make torch compile every layer anew."""
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

    Kernels are not chosen by timing, so runs repeat bit for bit; dropout draws as it does uncompiled.
    """
    import torch

    known = torch._inductor.list_options()  # noqa: SLF001 - documented with torch.compile
    return {name: True for name in ("deterministic", "fallback_random") if name in known}


def run_layers(model: PeftModel, *, compiled: bool, recomputed: int, random: bool) -> None:
    """Compile each decoder layer's forward pass, and recompute the activations of some in the backward pass.

    Every layer is the same code on other weights, so torch compiles it once. Recomputation is outside of it, and inside
    of what FSDP2 hooks to the layer: gathered weights are there both times.

    Args:
        model: a PEFT model.
        compiled: compile.
        recomputed: how many layers, from the first on.
        random: whether dropout must be recomputed as it was, for which the generator's state is read each time.
    """
    import torch
    from torch.utils.checkpoint import checkpoint

    if compiled:
        torch.compiler.reset()  # of each function torch keeps a few compilations for the life of a process
        compile_layer = functools.partial(torch.compile, dynamic=False, options=compile_options())
    for number, layer in enumerate(model.get_base_model().model.layers):
        forward = layer.forward
        if compiled:
            forward = compile_layer(forward)
        if number < recomputed:
            forward = functools.partial(checkpoint, forward, use_reentrant=False, preserve_rng_state=random)
        layer.forward = forward
