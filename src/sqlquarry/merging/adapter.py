"""Which adapter tensor changes which base tensor, and how: the algebra of LoRA and its exactly mergeable variants."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.errors import MergeError, UnsupportedAdapterError, UnsupportedModelError, UnusedTensorsError
from sqlquarry.merging.tensorfile import FLOATS, StoredTensor, TensorFile

if TYPE_CHECKING:
    import torch

_PREFIX = "base_model.model."  # PEFT's wrapper in front of every module name
_BLOCK_ELEMENTS = 1 << 20
_TIED = re.compile(r"(^|\.)(embed_tokens|lm_head)\.")  # peft.utils.other.EMBEDDING_LAYER_NAMES

# Fields of adapter_config.json that change the update, and why it then is no sum of weights.
_REFUSED = {
    "alora_invocation_tokens": "aLoRA acts only after its invocation tokens, which no single weight can do",
    "arrow_config": "Arrow chooses between adapters for every token",
    "fan_in_fan_out": "its weights are stored transposed (Conv1D, GPT-2), which Bedrock does not import",
    "kasa_config": "KaSA takes singular values out of the base weights, and the checkpoint still has them",
    "layer_replication": "the trained model has more layers than the base checkpoint",
    "megatron_config": "Megatron's layers do not have the checkpoint's names",
    "target_parameters": "its tensors do not name the parameter that they belong to",
    "trainable_token_indices": "single rows of the embedding were trained beside LoRA",
    "use_bdlora": "BD-LoRA's factors are block-diagonal",
    "use_qalora": "QA-LoRA pools the input, so its update is not B @ A",
}
# Values of init_lora_weights (by how they begin) with which PEFT changes the base weights before training.
_REFUSED_INITS = ("pissa", "olora", "corda", "loftq", "lora_ga")


@dataclass(frozen=True, slots=True)
class Update:
    """The adapter tensors that change one base tensor.

    Args:
        saved: replaces the base tensor (modules_to_save, trained biases).
        a: (rank, in), or (rank, vocabulary) for an embedding; None for a bias.
        b: (out, rank), or (out,) for a bias; None where the tensor is only replaced.
        magnitude: DoRA's length of each row, (out,).
        scale: alpha / rank, or alpha / sqrt(rank) with rsLoRA.
        transposed: whether the base tensor is (vocabulary, out), as embeddings are.
    """

    saved: StoredTensor | None = None
    a: StoredTensor | None = None
    b: StoredTensor | None = None
    magnitude: StoredTensor | None = None
    scale: float = 1.0
    transposed: bool = False

    def apply(self, weight: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, float | None]:
        """The merged tensor, computed in fp32 and rounded once to `dtype`, and ‖ΔW‖/‖W‖ of an updated matrix.

        W + s B A (LoRA, Hu et al. 2021, arXiv:2106.09685, section 4.1; s = alpha/sqrt(r): rsLoRA, Kalajdzievski 2023,
        arXiv:2312.03732); m (W + s B A) / ‖W + s B A‖ by rows (DoRA, Liu et al. 2024, arXiv:2402.09353, equation 5).
        `weight` may be overwritten.
        """
        import torch

        if self.saved is not None:
            weight = self.saved.load()
        if self.b is None:
            return weight.to(dtype), None
        b = self.b.load().float()
        if self.a is None:
            return b.mul_(self.scale).add_(weight).to(dtype), None
        a = self.a.load().float()
        magnitude = None if self.magnitude is None else self.magnitude.load().float()
        merged = weight if weight.dtype == dtype else torch.empty(weight.shape, dtype=dtype)
        change = size = 0.0
        for rows in _row_blocks(*weight.shape):
            before = weight[rows].float()
            delta = ((b @ a[:, rows]).T if self.transposed else b[rows] @ a).mul_(self.scale)
            after = before + delta
            if magnitude is not None:
                after.mul_((magnitude[rows] / torch.linalg.norm(after, dim=1))[:, None])
                delta = after - before
            change += torch.linalg.vector_norm(delta).item() ** 2
            size += torch.linalg.vector_norm(before).item() ** 2
            merged[rows] = after
        return merged, math.sqrt(change / size) if size else None


def _row_blocks(rows: int, columns: int) -> list[slice]:
    """Rows in blocks that stay in the processor's cache, so that no fp32 matrix is ever in memory whole.

    A block of a single row would be multiplied by another routine and differ in the last bit, so the last block takes
    what is left over.
    """
    height = max(64, _BLOCK_ELEMENTS // columns // 64 * 64)
    starts = range(0, max(1, rows - height + 1), height)
    return [slice(start, start + height if start != starts[-1] else rows) for start in starts]


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """PEFT's two adapter files: the configuration and the tensors by name."""

    config: Mapping[str, Any]
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, directory: Path) -> LoraAdapter:
        """Read configuration and header, and refuse what cannot be merged.

        Raises:
            UnsupportedAdapterError: a kind of adapter whose merge would be wrong.
            MergeError: a file is missing or damaged.
        """
        path = directory / "adapter_config.json"
        try:
            config = json.loads(path.read_text())
        except (OSError, ValueError) as error:
            raise MergeError(f"{path} cannot be read ({error}). Train the adapter again.") from error
        _refuse(config)
        tensors = {tensor.name: tensor for tensor in TensorFile.open(directory / "adapter_model.safetensors").tensors}
        if not tensors:
            raise MergeError(f"{directory} holds no adapter tensors, so there is nothing to merge. Train it again.")
        if empty := sorted(name for name, tensor in tensors.items() if not tensor.nbytes):
            raise MergeError(f"{empty[0]} ({len(empty)} such in all) is empty: saved before FSDP had gathered it")
        return cls(config, tensors)

    def require_finite(self) -> None:
        """Read every tensor once.

        Raises:
            MergeError: one holds NaN or infinity.
        """
        for tensor in self.tensors.values():
            if not all_finite(tensor.load()):
                raise MergeError(f"adapter tensor {tensor.name} holds NaN or infinity: the training diverged")

    def updates(self, base: Mapping[str, StoredTensor], *, tied: bool) -> dict[str, Update]:
        """Base tensor name -> its update, for every tensor that changes.

        Args:
            base: all tensors of the base checkpoint by name.
            tied: whether embedding and output head share one tensor.

        Raises:
            UnsupportedAdapterError: the adapter changes one of two tied tensors.
            UnusedTensorsError: adapter tensors are left over.
            MergeError: shapes do not fit, or half of a pair is missing.
        """
        if tied and (touched := sorted(name for name in self.tensors if _TIED.search(name))):
            raise UnsupportedAdapterError(
                f"the base shares one tensor between embedding and output head, and the adapter changes it for one of "
                f"them ({touched[0]}). Leave embed_tokens and lm_head out of target_modules and modules_to_save."
            )
        unused = dict(self.tensors)
        updates = {name: self._update(target, unused) for name, target in base.items()}
        if unused:
            raise UnusedTensorsError(
                f"{len(unused)} adapter tensors belong to nothing in the base: {', '.join(sorted(unused)[:5])}"
                f"{' …' if len(unused) > 5 else ''}. Merge into the base that the adapter was trained on."
            )
        return {name: update for name, update in updates.items() if update != Update()}

    def _update(self, target: StoredTensor, unused: dict[str, StoredTensor]) -> Update:
        module, _, leaf = target.name.rpartition(".")

        def take(suffix: str) -> StoredTensor | None:
            return unused.pop(f"{_PREFIX}{module}.{suffix}", None)

        saved = take(leaf) or take(f"base_layer.{leaf}")
        if leaf == "weight":
            a, b = take("lora_A.weight"), take("lora_B.weight")
            # DoRA of an embedding has another norm, so its magnitude is left over and refused.
            magnitude = take("lora_magnitude_vector") if a is not None else None
            if self.config.get("use_dora") and a is not None and magnitude is None:
                raise MergeError(f"the adapter uses DoRA but has no lora_magnitude_vector for {module}. Save it again.")
            embedding = take("lora_embedding_A")
            update = Update(saved, a or embedding, b or take("lora_embedding_B"), magnitude, transposed=bool(embedding))
            if (update.a is None) != (update.b is None):
                raise MergeError(f"the adapter has only one of lora_A and lora_B for {module}. Save it again.")
        else:
            update = Update(saved, b=take("lora_B.bias") if leaf == "bias" else None)
        _check_fit(target, update)
        return dataclasses.replace(update, scale=self._scale(module, update.a)) if update.b is not None else update

    def _scale(self, module: str, a: StoredTensor | None) -> float:
        # The rank is read off the tensor, so that rank_pattern needs no second reading of PEFT's rules.
        a = a or self.tensors.get(f"{_PREFIX}{module}.lora_A.weight")
        if a is None:
            raise MergeError(f"the adapter has lora_B.bias but no lora_A for {module}. Save it again.")
        rank = a.shape[0]
        patterns = self.config.get("alpha_pattern") or {}
        # peft.utils.other.get_pattern_key
        matches = (value for key, value in patterns.items() if re.match(rf"(.*\.)?({key})$", module))
        alpha = float(next(matches, self.config["lora_alpha"]))
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)


def all_finite(tensor: torch.Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity; many times faster than isfinite, which writes a mask."""
    return all(bool(extreme.isfinite()) for extreme in tensor.aminmax())


def _refuse(config: Mapping[str, Any]) -> None:
    reasons = [f"{field}: {reason}" for field, reason in _REFUSED.items() if config.get(field)]
    if config.get("peft_type") != "LORA":
        reasons.append(f"peft_type {config.get('peft_type')!r}: only LORA can be merged")
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_REFUSED_INITS):
        reasons.append(f"init_lora_weights {init!r}: it changed the base weights, and the checkpoint has the old ones")
    if reasons:
        raise UnsupportedAdapterError(f"this adapter cannot be merged. {'; '.join(reasons)}. Train with plain LoRA.")


def _check_fit(target: StoredTensor, update: Update) -> None:
    expected = [(update.saved, target.shape), (update.b, target.shape)]
    if update.a is not None:
        out, width = target.shape if len(target.shape) == 2 else (0, 0)
        if update.transposed:
            out, width = width, out
        rank = (*update.a.shape, 1)[0]
        expected[1:] = [(update.a, (rank, width)), (update.b, (out, rank)), (update.magnitude, (out,))]
    for tensor, shape in expected:
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise MergeError(
                f"adapter tensor {tensor.name} is {list(tensor.shape)}, but {target.name} of the base needs "
                f"{list(shape)}. Merge into the base that the adapter was trained on, with its vocabulary unchanged."
            )
        if target.dtype not in FLOATS:
            raise UnsupportedModelError(
                f"{target.name} is {target.dtype}, and the adapter changes it: merge into {', '.join(FLOATS)} weights"
            )
