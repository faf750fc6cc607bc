"""Convert transformers' settings of 4-bit weights to the recipe by which a merge computes the same weights again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from sqlquarry.errors import ConfigError, UnsupportedModelError
from sqlquarry.merging.tensor_file import StoredTensor
from sqlquarry.quantization import QuantizationRecipe
from sqlquarry.text import first_of

# The fields of transformers' BitsAndBytesConfig (5.24, utils/quantization_config.py) and their effect here.
_USED = (
    "bnb_4bit_compute_dtype",
    "bnb_4bit_quant_storage",
    "bnb_4bit_quant_type",
    "bnb_4bit_use_double_quant",
    "llm_int8_skip_modules",
    "load_in_4bit",
    "load_in_8bit",
    "quant_method",
)
_WITHOUT_EFFECT = ("llm_int8_enable_fp32_cpu_offload", "llm_int8_has_fp16_weight", "llm_int8_threshold")
_DTYPES = ("uint8", "float16", "bfloat16", "float32")
_LAYER = "model.layers."
_HEAD = "lm_head"


@dataclass(frozen=True, slots=True, kw_only=True)
class FourBitSettings:
    """How transformers quantized the base of a training. The defaults are those of QLoRA.

    Args:
        quant_type: the 4-bit code, "nf4" or "fp4".
        double_quantization: whether the scales are also quantized.
        storage_dtype: dtype of the packed bytes. It changes no value, except that FSDP2 on CUDA damages some weights
            that are packed as bfloat16 (see `QuantizationRecipe`). A merge does not repeat that damage.
        load_dtype: dtype of the weights after dequantization.
        skip_modules: names of modules that stay in 16 bits. None means transformers' default, which is the head.
    """

    quant_type: Literal["nf4", "fp4"] = "nf4"
    double_quantization: bool = True
    storage_dtype: str = "uint8"
    load_dtype: str = "bfloat16"
    skip_modules: tuple[str, ...] | None = None

    @classmethod
    def of(cls, config: Mapping[str, object], *, load_dtype: str | None = None) -> FourBitSettings:
        """Read the fields of a `BitsAndBytesConfig`.

        The dtype in which a model was loaded is not among the fields. It matters because dequantized weights are
        rounded to it, and then to `bnb_4bit_compute_dtype` in every product. So the compute dtype tells enough if it
        has 16 bits. If it is float32, which is also the default, the model was loaded in bfloat16 unless `load_dtype`
        says otherwise.

        Raises:
            ConfigError: a field is unknown or invalid, or the settings are not those of 4-bit weights.
        """
        fields = {str(key).removeprefix("_"): value for key, value in config.items()}
        double, kind = fields.get("bnb_4bit_use_double_quant", False), fields.get("bnb_4bit_quant_type", "fp4")
        compute, storage = (
            _dtype_name(fields.get(key, default))
            for key, default in (("bnb_4bit_compute_dtype", "float32"), ("bnb_4bit_quant_storage", "uint8"))
        )
        skipped = fields.get("llm_int8_skip_modules")
        method = fields.get("quant_method", "bitsandbytes")
        checks = {
            "quant_method": (str(getattr(method, "value", method)) == "bitsandbytes", "'bitsandbytes'"),
            "load_in_8bit": (not fields.get("load_in_8bit"), "False, because 8-bit weights cannot be computed again"),
            "load_in_4bit": (fields.get("load_in_4bit") is True, "True"),
            "bnb_4bit_quant_type": (kind in ("nf4", "fp4"), "'nf4' or 'fp4'"),
            "bnb_4bit_use_double_quant": (isinstance(double, bool), "True or False"),
            "bnb_4bit_compute_dtype": (compute in _DTYPES[1:], " or ".join(_DTYPES[1:])),
            "bnb_4bit_quant_storage": (storage in _DTYPES, " or ".join(_DTYPES)),
            "llm_int8_skip_modules": (skipped is None or _are_names(skipped), "a list of full names of modules"),
        }
        bad = [
            f"{name} is {fields.get(name)!r:.80}, but must be {wanted}"
            for name, (sound, wanted) in checks.items()
            if not sound
        ]
        bad += [f"{name} is unknown" for name in sorted(fields.keys() - {*_USED, *_WITHOUT_EFFECT})]
        if bad:
            raise ConfigError(f"the quantization of the training is not usable: {'; '.join(bad)}.")
        return cls(
            quant_type="nf4" if kind == "nf4" else "fp4",
            double_quantization=bool(double),
            storage_dtype=storage,
            load_dtype=load_dtype if compute == "float32" and load_dtype in _DTYPES[1:] else _rounded(compute),
            skip_modules=tuple(skipped) if isinstance(skipped, list | tuple) else None,
        )

    def differences(self, other: FourBitSettings) -> str:
        """Describe the settings with other 4-bit values in `other`, or return "" if there are none.

        If `other` does not list the skipped modules, they are not compared.
        """
        names = ["quant_type", "double_quantization"]
        if other.skip_modules is not None and {*self._skipped} != {*other.skip_modules}:
            names.append("skip_modules")
        pairs = [(name, getattr(self, name), getattr(other, name)) for name in names]
        return ", ".join(f"{name} is {here!r} here and {there!r} there" for name, here, there in pairs if here != there)

    @property
    def _skipped(self) -> tuple[str, ...]:
        return (_HEAD,) if self.skip_modules is None else self.skip_modules

    def recipe(self, tensors: Mapping[str, StoredTensor]) -> QuantizationRecipe:
        """Return the recipe for a base with these tensors.

        Its scales are rounded as on CUDA, because adapters are trained on GPUs. The offsets of double quantization are
        not known, so a merge takes the means of the scales.

        Raises:
            UnsupportedModelError: the base is not a plain decoder of the Llama family.
            ConfigError: versions of transformers disagree about which modules `skip_modules` names.
        """
        if experts := next((name for name in tensors if ".experts." in name), None):
            raise UnsupportedModelError(
                f"the base has experts ({experts}), and versions of transformers quantize these differently, so the "
                "4-bit weights of the training cannot be computed again. Merge with PEFT, and call sq.adopt_model."
            )
        linear = {
            name.removesuffix(".weight")
            for name, tensor in tensors.items()
            if name.startswith(_LAYER) and name.endswith(".weight") and len(tensor.shape) == 2
        }
        if not linear:
            raise UnsupportedModelError(
                f"the base has no linear layers named {_LAYER}…, so it is unknown which modules were 4-bit."
            )
        heads = {_HEAD} if f"{_HEAD}.weight" in tensors else set()
        modules = tuple(sorted(name for name in linear | heads if not _is_skipped(name, self._skipped)))
        return QuantizationRecipe(
            quant_type=self.quant_type,
            double_quantization=self.double_quantization,
            storage_dtype=self.storage_dtype,
            load_dtype=self.load_dtype,
            device="cuda",
            modules=modules,
        )


def _is_skipped(module: str, keys: tuple[str, ...]) -> bool:
    """Return whether `llm_int8_skip_modules` names a module.

    transformers 5 (quantizers_utils.should_convert_module) compares the start of the name up to a dot, and the end.
    Version 4 (integrations/bitsandbytes.py) looks for the key with a dot anywhere, and for the whole name.

    Raises:
        ConfigError: the two versions disagree.
    """
    now = any(module == key or module.startswith(f"{key}.") or module.endswith(key) for key in keys)
    before = any(module == key or f"{key}." in module for key in keys)
    if now != before:
        raise ConfigError(
            f"llm_int8_skip_modules is {first_of(keys)}, and versions of transformers disagree whether {module} is "
            f"among them. List the full names of the modules that stayed in 16 bits, such as {module}."
        )
    return now


def _are_names(value: object) -> bool:
    """Return whether a value is a list of plain names. transformers reads each of them as a regular expression."""
    return isinstance(value, list | tuple) and all(
        isinstance(name, str) and re.fullmatch(r"[\w.]+", name) for name in value
    )


def _dtype_name(value: object) -> str:
    return str(value).removeprefix("torch.")


def _rounded(compute: str) -> str:
    return "float16" if compute == "float16" else "bfloat16"
