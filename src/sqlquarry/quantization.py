"""Quantize base weights to 4 bits with the same recipe in training, merging and local inference.

A merge into the weights that the adapter was trained on is exact only if the recipe gives the same 4-bit values again.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from sqlquarry.errors import ConfigError, UnsupportedModelError

if TYPE_CHECKING:
    import torch
    from bitsandbytes.nn import Params4bit
    from transformers import BitsAndBytesConfig, PreTrainedModel

NESTED_BLOCK = 256  # number of scales that share one second-level scale (bitsandbytes.functional.quantize_4bit)


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizationRecipe:
    """The settings of bitsandbytes' 4-bit weights, as recorded in an adapter's manifest.

    Args:
        quant_type: the 4-bit code, "nf4" (Dettmers et al. 2023, arXiv:2305.14314) or "fp4".
        block_size: number of weights that share one scale.
        double_quantization: whether the scales are also quantized.
        storage_dtype: dtype of the packed bytes. FSDP2 moves float32 bit for bit. On CUDA it silently changes each
            bfloat16 that looks like a NaN, which is one packed pair in a thousand
            (https://github.com/bitsandbytes-foundation/bitsandbytes/issues/1945).
        load_dtype: dtype of the weights before quantization and after dequantization.
        device: device on which the weights were quantized. bitsandbytes' CUDA kernel takes the nearest 8-bit scale. Its
            CPU code sometimes takes the next one (about 3 scales in 1,000, measured on 0.50.2 and an H100).
        modules: sorted names of the quantized linear modules (``model.layers.0.mlp.up_proj``).
        offsets: mean of the block scales of each module, which double quantization subtracts. It is recorded because
            another device or number of threads sums in another order.
    """

    quant_type: Literal["nf4", "fp4"] = "nf4"
    block_size: int = 64
    double_quantization: bool = True
    storage_dtype: str = "float32"
    load_dtype: str = "bfloat16"
    device: str = "cpu"
    modules: tuple[str, ...] = ()
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        texts: tuple[object, ...] = (*self.modules, self.storage_dtype, self.load_dtype, self.device)
        dtypes = ("uint8", "float16", "bfloat16", "float32")
        sound = self.quant_type in ("nf4", "fp4") and type(self.block_size) is int and self.block_size > 0
        sound = sound and all(isinstance(text, str) for text in texts) and isinstance(self.double_quantization, bool)
        sound = sound and self.storage_dtype in dtypes and self.load_dtype in dtypes
        if not sound or not all(type(offset) in (int, float) for offset in self.offsets):
            raise ConfigError(
                f"the quantization recipe has a value of the wrong type: {self!r:.300}. Train the adapter again."
            )

    @classmethod
    def of(cls, fields: object) -> QuantizationRecipe:
        """Return the recipe with the fields in a manifest.

        Raises:
            ConfigError: the fields are not those of a recipe.
        """
        if not isinstance(fields, Mapping):
            raise _not_a_recipe(f"it is a {type(fields).__name__}")
        try:
            lists = {key: tuple(fields.get(key, ())) for key in ("modules", "offsets")}
            return cls(**{**fields, **lists})
        except TypeError as error:
            raise _not_a_recipe(str(error)) from error

    def completed(self, model: PreTrainedModel) -> QuantizationRecipe:
        """Return the recipe with the device, 4-bit modules and scale offsets of a quantized model."""
        import bitsandbytes

        layers = sorted(
            (name, module) for name, module in model.named_modules() if isinstance(module, bitsandbytes.nn.Linear4bit)
        )
        states = [module.weight.quant_state for _, module in layers]
        return dataclasses.replace(
            self,
            device=str(model.device.type),
            modules=tuple(name for name, _ in layers),
            offsets=tuple(float(state.offset) for state in states) if self.double_quantization else (),
        )

    def transformers_config(
        self, compute_dtype: torch.dtype, skip_modules: list[str] | None = None
    ) -> BitsAndBytesConfig:
        """Return the `BitsAndBytesConfig` with which transformers quantizes a model by this recipe.

        Args:
            compute_dtype: dtype of the products.
            skip_modules: full names of modules that stay in 16 bits. None means transformers' default, the head.
        """
        import torch
        from transformers import BitsAndBytesConfig

        return BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type=self.quant_type,
            bnb_4bit_use_double_quant=self.double_quantization,
            bnb_4bit_quant_storage=getattr(torch, self.storage_dtype),
            bnb_4bit_compute_dtype=compute_dtype,
            llm_int8_skip_modules=skip_modules,
        )

    def pack(self, weight: torch.Tensor, layer: torch.nn.Module | None = None) -> Params4bit:
        """Quantize a weight (outputs, inputs) to a 4-bit parameter of `layer`, on the weight's device."""
        import bitsandbytes
        import torch

        return bitsandbytes.nn.Params4bit(
            weight.to(getattr(torch, self.load_dtype)),
            requires_grad=False,
            blocksize=self.block_size,
            compress_statistics=self.double_quantization,
            quant_type=self.quant_type,
            quant_storage=getattr(torch, self.storage_dtype),
            module=layer,
        ).to(weight.device)

    def round_trip(self, weight: torch.Tensor, module: str | None = None) -> torch.Tensor:
        """Quantize and dequantize a weight: return the values that a 4-bit layer multiplies with, as `load_dtype`."""
        import bitsandbytes.functional as bnb
        import torch

        # bitsandbytes misreads blocks that cross rows on some processors (see `keep_trainable_on_cpu`), but not if the
        # weight is flat.
        packed, state = bnb.quantize_4bit(
            weight.to(getattr(torch, self.load_dtype)).reshape(-1),
            blocksize=self.block_size,
            quant_type=self.quant_type,
        )
        state.absmax = self.stored_scales(state.absmax, module)
        dequantized: torch.Tensor = bnb.dequantize_4bit(packed, state)
        return dequantized.reshape(weight.shape)

    def stored_scales(self, scales: torch.Tensor, module: str | None = None) -> torch.Tensor:
        """Return block scales as dequantization uses them, fp32 (blocks,). Double quantization rounds them to 8 bits.

        Args:
            scales: the largest magnitude of each block of a complete weight, fp32.
            module: name of the module, for its recorded offset. None uses the mean of `scales`.

        Source: Dettmers et al. 2023, arXiv:2305.14314, section 3 (double quantization). Scales are rounded as by the
        kernels of bitsandbytes 0.50.2.
        """
        import bitsandbytes.functional as bnb
        import torch

        if not self.double_quantization:
            return scales
        recorded = dict(zip(self.modules, self.offsets, strict=False)).get(module or "")
        offset = scales.mean() if recorded is None else torch.tensor(recorded, device=scales.device)
        codes, state = bnb.quantize_blockwise(scales - offset, blocksize=NESTED_BLOCK)
        if self.device == "cuda":
            borders = (state.code[1:] + state.code[:-1]) / 2
            relative = (scales - offset) / state.absmax.repeat_interleave(NESTED_BLOCK)[: len(scales)]
            codes = torch.searchsorted(borders, relative).to(torch.uint8)
        dequantized: torch.Tensor = bnb.dequantize_blockwise(codes, state).float() + offset
        return dequantized


def _not_a_recipe(reason: str) -> ConfigError:
    return ConfigError(f"the manifest's quantization recipe is invalid ({reason}). Train the adapter again.")


def keep_trainable_on_cpu(model: PreTrainedModel) -> PreTrainedModel:
    """Switch off bitsandbytes' CPU inference path, which silently ruins gradients after one evaluation.

    On AVX512-BF16 machines, `Linear4bit` repacks its weight in evaluation mode and never unpacks it. Its product then
    has no backward pass, so LoRA gradients are off by about 100 % without an error (measured on bitsandbytes 0.50.2).
    The path also crashes for some shapes. The flag matters for CPU tensors only.

    Raises:
        UnsupportedModelError: bitsandbytes misreads a weight whose blocks cross its rows. Its code for AVX512 does so
            for many shapes (measured on 0.50.2: off by up to 95 % of the norm).
    """
    import bitsandbytes

    for name, module in model.named_modules():
        if not isinstance(module, bitsandbytes.nn.Linear4bit):
            continue
        module.support_avx512bf16_for_cpu = False
        weight = module.weight
        if weight.device.type == "cpu" and module.in_features % weight.blocksize and _is_misread(weight):
            raise UnsupportedModelError(
                f"{name} has {module.in_features} columns, which is not a multiple of the 4-bit block size "
                f"{weight.blocksize}, and bitsandbytes misreads such weights on this processor. Use a GPU, or set "
                "quantization=None."
            )
    return model


def _is_misread(weight: Params4bit) -> bool:
    """Return whether bitsandbytes dequantizes a weight differently by rows than as one sequence of blocks."""
    import bitsandbytes.functional as bnb
    import torch

    if weight.quant_state is None:  # not quantized yet
        return False
    flat = copy.copy(weight.quant_state)
    flat.shape = torch.Size([weight.quant_state.shape.numel()])
    by_rows, as_blocks = (bnb.dequantize_4bit(weight.data, state) for state in (weight.quant_state, flat))
    return not torch.equal(by_rows.reshape(-1), as_blocks.reshape(-1))


def hold_dequantized(model: PreTrainedModel, dtype: torch.dtype) -> PreTrainedModel:
    """Replace each 4-bit layer, in place, with a plain layer that has the same values as `dtype`."""
    import bitsandbytes
    import torch

    for name, module in list(model.named_modules()):
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            weight = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state).to(dtype)
            plain = torch.nn.Linear(module.in_features, module.out_features, bias=False, device="meta")
            plain.weight = torch.nn.Parameter(weight, requires_grad=False)
            plain.bias = module.bias
            model.set_submodule(name, plain)
    # transformers and PEFT read these to choose the class of their layers.
    model.is_loaded_in_4bit = model.is_quantized = False
    if hasattr(model, "hf_quantizer"):
        del model.hf_quantizer
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model
