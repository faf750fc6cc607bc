"""Load a base model part by part, so that processes that share it never need memory for all of its weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.checkpoints.model_files import weight_files
from sqlquarry.errors import UnsupportedModelError
from sqlquarry.pretrained import compute_dtype, reading_model
from sqlquarry.quantization import QuantizationRecipe, keep_trainable_on_cpu

if TYPE_CHECKING:
    import torch
    from torch import nn
    from transformers import PreTrainedModel


class MetaLoadedBase:
    """A model as from `load_causal_lm`, but without weights. `fill` loads the weights of one part at a time.

    Before that, a weight is an expanded view of a single number. It takes no memory, but PEFT can read its device,
    dtype and shape.

    Args:
        directory: directory with config.json and safetensors.
        device: device of the weights.
        recipe: how to quantize the weights. None does not quantize them.
        held: hold the 4-bit values in 16 bits, as `hold_dequantized` does.
        attn_implementation: transformers' name of the attention to use.

    Attributes:
        model: the model.
        missing: names of weights that are in none of the files, such as experts, which transformers fuses. If there are
            any, the model cannot be filled.
    """

    def __init__(
        self,
        directory: Path,
        device: torch.device,
        recipe: QuantizationRecipe | None,
        *,
        held: bool,
        attn_implementation: str,
    ) -> None:
        import torch
        from safetensors import safe_open
        from transformers import AutoConfig, AutoModelForCausalLM

        self._device, self._recipe, self._held = device, recipe, held
        self._dtype = compute_dtype(device.type)
        with torch.device("meta"), reading_model(directory):
            config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
            self.model = AutoModelForCausalLM.from_config(
                config, dtype=self._dtype, attn_implementation=attn_implementation, trust_remote_code=False
            )
        rotary = self.model.model.rotary_emb  # has only tables, which are computed and not loaded
        self.model.model.rotary_emb = type(rotary)(config).to(device)
        self._offsets: dict[str, float] = {}  # offset of the scales of each quantized layer
        if recipe:
            self._prepare_layers(recipe)
        self._unread = _owners(self.model)
        for (module, kind), *more in self._unread.values():
            self._set(self._placeholder(module, kind), (module, kind), *more)
        self._files: dict[str, Path] = {}
        for path in weight_files(directory):
            with safe_open(path, "pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)
        self.missing = tuple(name for name in self._unread if name not in self._files)

    def fill(self, part: nn.Module) -> None:
        """Load those weights of a part of the model that have not been loaded yet.

        Raises:
            UnsupportedModelError: the shape of a weight does not match config.json.
        """
        modules = set(part.modules())
        names = [name for name, owners in self._unread.items() if any(module in modules for module, _ in owners)]
        for name in names:
            owners = self._unread.pop(name)
            self._set(self._read(name, *owners[0]), *owners)

    def recorded(self) -> QuantizationRecipe | None:
        """Return the recipe with device, modules and offsets, as `completed` does. All weights must be loaded."""
        if self._recipe is None:
            return None
        modules = tuple(sorted(self._offsets))
        offsets = tuple(self._offsets[name] for name in modules) if self._recipe.double_quantization else ()
        return dataclasses.replace(self._recipe, device=self._device.type, modules=modules, offsets=offsets)

    def _prepare_layers(self, recipe: QuantizationRecipe) -> None:
        import bitsandbytes
        import torch

        head = self.model.get_output_embeddings()
        for name, module in list(self.model.named_modules()):
            if not isinstance(module, torch.nn.Linear) or module is head:
                continue
            self._offsets[name] = 0.0
            if not self._held:
                sizes = module.in_features, module.out_features, module.bias is not None
                kind = self._dtype, recipe.double_quantization, recipe.quant_type, getattr(torch, recipe.storage_dtype)
                self.model.set_submodule(name, bitsandbytes.nn.Linear4bit(*sizes, *kind, device="meta"))
        if not self._held:
            self.model.is_loaded_in_4bit = True  # PEFT reads this to choose the class of its layers
            keep_trainable_on_cpu(self.model)

    def _placeholder(self, module: nn.Module, kind: str) -> torch.nn.Parameter:
        import bitsandbytes
        import torch

        there = getattr(module, kind)
        if isinstance(there, bitsandbytes.nn.Params4bit):
            number = torch.zeros((), dtype=there.quant_storage).expand(there.shape)
            return bitsandbytes.nn.Params4bit(number, requires_grad=False, quant_type=there.quant_type)  # type: ignore[no-any-return]  # it has no types
        return torch.nn.Parameter(torch.zeros((), dtype=there.dtype).expand(there.shape), requires_grad=False)

    def _read(self, name: str, layer: nn.Module, kind: str) -> torch.nn.Parameter:
        import bitsandbytes.functional as bnb
        import torch
        from safetensors import safe_open

        with safe_open(self._files[name], "pt") as file:
            value = file.get_tensor(name).to(self._device, self._dtype)
        expected = getattr(layer, kind).shape
        if value.shape != expected:
            raise UnsupportedModelError(
                f"{self._files[name]} contains {name} with the shape {tuple(value.shape)}, but config.json requires "
                f"{tuple(expected)}. The files are not from the same model. Download the base model again."
            )
        linear = name.removesuffix(".weight")
        if self._recipe and linear in self._offsets:
            packed = self._recipe.pack(value, None if self._held else layer)
            state = packed.quant_state
            self._offsets[linear] = float(state.offset) if self._recipe.double_quantization else 0.0
            if not self._held:
                return packed  # type: ignore[no-any-return]  # bitsandbytes has no types
            value = bnb.dequantize_4bit(packed.data, state).to(self._dtype)
        return torch.nn.Parameter(value, requires_grad=False)

    def _set(self, value: torch.nn.Parameter, *owners: tuple[nn.Module, str]) -> None:
        for module, kind in owners:
            setattr(module, kind, value)


def _owners(model: PreTrainedModel) -> dict[str, list[tuple[nn.Module, str]]]:
    """Return the first name of each parameter, and the modules that use it. Tied weights have several."""
    owners: dict[int, tuple[str, list[tuple[nn.Module, str]]]] = {}
    for path, module in model.named_modules():
        for kind, parameter in module.named_parameters(recurse=False):
            owners.setdefault(id(parameter), (f"{path}.{kind}", []))[1].append((module, kind))
    return dict(owners.values())
