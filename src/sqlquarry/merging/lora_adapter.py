"""Read PEFT's two adapter files, and find which of their tensors change which base tensor."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.errors import MergeError, UnsupportedAdapterError, UnsupportedModelError, UnusedTensorsError
from sqlquarry.files.metadata import JsonObject, read_object
from sqlquarry.merging.refusals import refuse_malformed, refuse_unmergeable
from sqlquarry.merging.tensor_file import FLOATS, StoredTensor, TensorFile
from sqlquarry.merging.update import ExpertSlice, LowRank, TokenRows, Update, all_finite

_PREFIX = "base_model.model."  # PEFT's wrapper in front of every module name
# Checkpoints hold every expert's three matrices; transformers 5 (conversion_mapping.py, "mixtral" and "qwen2_moe")
# holds two parameters for all of them, which is what an adapter's target_parameters name.
_EXPERT = re.compile(
    r"(.+)\.(?:mlp|block_sparse_moe)\.experts\.(\d{1,9})\.(?:(gate_proj|w1)|(up_proj|w3)|(?:down_proj|w2))\.weight"
)
# What VeLoRA and MonteCLoRA keep for the next training step; their forward pass outside training is plain LoRA's.
_TRAINING_STATE = re.compile(r".*\.lora_(velora|monteclora)_.*")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """PEFT's two adapter files: the configuration and the tensors by name."""

    config: JsonObject
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, directory: Path) -> LoraAdapter:
        """Read configuration and header, and refuse what cannot be merged.

        Raises:
            UnsupportedAdapterError: a kind of adapter whose merge would be wrong.
            MergeError: a file is missing or damaged, or a field has a value of another kind.
        """
        path = directory / "adapter_config.json"
        try:
            config = read_object(path)
        except (OSError, ValueError) as error:
            raise MergeError(f"{path} cannot be read ({error}). Train the adapter again.") from error
        refuse_malformed(config)
        refuse_unmergeable(config)
        file = TensorFile.open(directory / "adapter_model.safetensors")
        tensors = {tensor.name: tensor for tensor in file.tensors if not _TRAINING_STATE.fullmatch(tensor.name)}
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

    def changes(self, targets: Mapping[str, StoredTensor]) -> dict[str, Update]:
        """Return tensor name -> its update, for every tensor that changes.

        Args:
            targets: all tensors of the trained model by name, as the checkpoint names them.

        Raises:
            UnsupportedAdapterError: a kind of update that no weight can hold.
            UnusedTensorsError: adapter tensors are left over.
            MergeError: shapes do not fit, or half of a pair is missing.
        """
        lookup = _Lookup(self, targets)
        updates = {name: lookup.update(target) for name, target in targets.items()}
        if lookup.unused:
            lookup.refuse_homeless_biases()
            raise UnusedTensorsError(
                f"{len(lookup.unused)} adapter tensors belong to nothing in the base: "
                f"{', '.join(sorted(lookup.unused)[:5])}{' …' if len(lookup.unused) > 5 else ''}. Merge into the base "
                "that the adapter was trained on."
            )
        return {name: update for name, update in updates.items() if update != Update()}

    def scale(self, key: str, rank: int) -> float:
        """Alpha over the rank for a module; the rank is read off the tensor, as rank_pattern was applied to it."""
        patterns = self.config.get("alpha_pattern") or {}
        # peft.utils.other.get_pattern_key
        matches = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", key))
        alpha = float(next(matches, self.config.get("lora_alpha", 8)))  # 8: LoraConfig's default
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def pattern_key(self, name: str) -> str:
        """Return what alpha_pattern matches: the parameter if target_parameters names it, else its module."""
        targets = self.config.get("target_parameters") or ()
        return name if any(f".{name}".endswith(f".{target}") for target in targets) else name.rpartition(".")[0]

    def token_indices(self, module: str) -> Sequence[int] | None:
        """Return the trained rows of an embedding; a plain list means the input embedding."""
        indices = self.config.get("trainable_token_indices")
        by_module = indices if isinstance(indices, dict) else {module: indices}
        return next((rows for key, rows in by_module.items() if f".{module}".endswith(f".{key}")), None)


class _Lookup:
    """The adapter's tensors, each marked as used once a base tensor has asked for it."""

    def __init__(self, adapter: LoraAdapter, targets: Mapping[str, StoredTensor]) -> None:
        self._adapter = adapter
        self.unused = set(adapter.tensors)
        self._experts: dict[str, int] = {}  # MoE layer -> its number of experts
        for match in filter(None, map(_EXPERT.fullmatch, targets)):
            self._experts[match[1]] = max(self._experts.get(match[1], 0), int(match[2]) + 1)

    def _take(self, module: str, suffix: str) -> StoredTensor | None:
        # transformers 5 calls Mixtral's block by another name than its checkpoints do.
        for name in (module, module.replace(".block_sparse_moe.", ".mlp.")):
            if (tensor := self._adapter.tensors.get(f"{_PREFIX}{name}.{suffix}")) is not None:
                self.unused.discard(tensor.name)
                return tensor
        return None

    def update(self, target: StoredTensor) -> Update:
        """Return what changes one base tensor."""
        module, _, leaf = target.name.rpartition(".")
        saved = self._take(module, leaf) or self._take(module, f"base_layer.{leaf}")
        if leaf != "weight":
            update = Update(saved, self._bias(module) if leaf == "bias" else ())
            _check_fit(target, [(saved, target.shape), *((factor.b, target.shape) for factor in update.factors)])
            return update
        factors = self._factors(module, target) or self._expert(target)
        magnitude = self._take(module, "lora_magnitude_vector")
        if self._adapter.config.get("use_dora") and factors and magnitude is None:
            raise MergeError(f"the adapter uses DoRA but has no lora_magnitude_vector for {module}. Save it again.")
        if magnitude is not None and not factors:
            raise MergeError(f"the adapter has a lora_magnitude_vector but no lora_A for {module}. Save it again.")
        hidden = target.shape[-1:] if factors and factors[0].transposed else target.shape[:1]
        _check_fit(target, [(saved, target.shape), (magnitude, hidden)])
        return Update(saved, factors, magnitude, self._tokens(module, target))

    def _factors(self, module: str, target: StoredTensor) -> tuple[LowRank, ...]:
        a, b = self._take(module, "lora_A.weight"), self._take(module, "lora_B.weight")
        embedding_a, embedding_b = self._take(module, "lora_embedding_A"), self._take(module, "lora_embedding_B")
        transposed = embedding_a is not None
        a, b = a or embedding_a, b or embedding_b
        if a is None and b is None:
            return ()
        if a is None or b is None:
            raise MergeError(f"the adapter has only one of lora_A and lora_B for {module}. Save it again.")
        out, width = target.shape if len(target.shape) == 2 else (0, 0)
        if transposed:
            out, width = width, out
        rank = (*a.shape, 1)[0]
        _check_fit(target, [(a, (rank, width)), (b, (out, rank))])
        trained = re.sub(r"\.lora_(A\.weight|embedding_A)$", "", a.name.removeprefix(_PREFIX))
        scale = self._adapter.scale(self._adapter.pattern_key(f"{trained}.weight"), rank)
        return (LowRank(a, b, scale, transposed=transposed),)

    def _bias(self, module: str) -> tuple[LowRank, ...]:
        b = self._take(module, "lora_B.bias")
        if b is None:
            return ()
        a = self._adapter.tensors.get(f"{_PREFIX}{module}.lora_A.weight")
        if a is None:
            raise MergeError(f"the adapter has lora_B.bias but no lora_A for {module}. Save it again.")
        return (LowRank(None, b, self._adapter.scale(module, (*a.shape, 1)[0])),)

    def _expert(self, target: StoredTensor) -> tuple[LowRank, ...]:
        match = _EXPERT.fullmatch(target.name)
        if match is None or len(target.shape) != 2:
            return ()
        layer, index, gate, up = match.groups()
        rows, count = target.shape[0], self._experts[layer]
        parameter, height = ("gate_up_proj", 2 * rows) if gate or up else ("down_proj", rows)
        part = (rows, height) if up else (0, rows) if gate else None
        # Two parameters of one module are told apart by nesting (base_layer), in an order that the file does not
        # say; their shapes do: gate_up is (2 I, H) and down (H, I), which never agree.
        for level in ("", "base_layer."):
            names = [f"{_PREFIX}{layer}.mlp.experts.{level}lora_{which}.weight" for which in "AB"]
            a, b = (self._adapter.tensors.get(name) for name in names)
            if a is None or b is None or len(a.shape) != 2 or a.shape[0] % count:
                continue
            if a.shape[1] != target.shape[1] or b.shape != (height, a.shape[0]):
                continue
            self.unused.difference_update(names)
            scale = self._adapter.scale(f"{layer}.mlp.experts.{parameter}", a.shape[0] // count)
            return (LowRank(a, b, scale, expert=ExpertSlice(int(index), count, part)),)
        return ()

    def _tokens(self, module: str, target: StoredTensor) -> TokenRows | None:
        values = self._take(module, "token_adapter.trainable_tokens_delta")
        if values is None:
            return None
        indices, rows = self._adapter.token_indices(module), (*target.shape, 0)[0]
        if indices is None or not all(0 <= index < rows for index in indices):
            raise MergeError(
                f"the adapter trained rows of {module}, but its trainable_token_indices are {indices!r:.200}, of "
                f"{rows} rows. Save it again."
            )
        _check_fit(target, [(values, (len(indices), *target.shape[1:]))])
        return TokenRows(tuple(indices), values)

    def refuse_homeless_biases(self) -> None:
        """Name the reason where PEFT's lora_bias has no bias to go into (PEFT refuses these as well)."""
        if homeless := sorted(name for name in self.unused if name.endswith(".lora_B.bias")):
            raise UnsupportedAdapterError(
                f"lora_bias: the adapter adds a bias ({homeless[0]}, {len(homeless)} such in all) where the base has "
                "none. Train with lora_bias=False."
            )


def _check_fit(target: StoredTensor, expected: Sequence[tuple[StoredTensor | None, tuple[int, ...]]]) -> None:
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
