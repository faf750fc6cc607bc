"""Read PEFT's two adapter files and find out which adapter tensors change which base tensor."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.checkpoints.adapter_tables import PEFT_PREFIX, TABLE, WRAPPERS
from sqlquarry.errors import MergeError, UnsupportedAdapterError, UnsupportedModelError, UnusedTensorsError
from sqlquarry.files.metadata import JsonObject, read_object
from sqlquarry.merging.refusals import refuse_malformed, refuse_unmergeable
from sqlquarry.merging.tensor_file import FLOATS, StoredTensor, TensorFile, row_blocks
from sqlquarry.merging.update import ExpertSlice, LowRank, TokenRows, Update, all_finite

_BLOCK_BYTES = 16 * 2**20
# A checkpoint has three matrices for each expert. transformers 5 (conversion_mapping.py, "mixtral" and "qwen2_moe") has
# two parameters for all experts of a layer, and an adapter's target_parameters refer to these two.
_EXPERT = re.compile(
    r"(.+)\.(?:mlp|block_sparse_moe)\.experts\.(\d{1,9})\.(?:(gate_proj|w1)|(up_proj|w3)|(?:down_proj|w2))\.weight"
)
# State that VeLoRA and MonteCLoRA save for the next training step. Outside training, both compute plain LoRA.
_TRAINING_STATE = re.compile(r".*\.lora_(velora|monteclora)_.*")


@dataclass(frozen=True, slots=True)
class LoraAdapter:
    """PEFT's two adapter files: the configuration and the tensors by name."""

    config: JsonObject
    tensors: Mapping[str, StoredTensor]

    @classmethod
    def open(cls, directory: Path) -> LoraAdapter:
        """Read the configuration and the tensors' header, and refuse adapters that cannot be merged.

        Raises:
            UnsupportedAdapterError: this kind of adapter would be merged wrongly.
            MergeError: a file is missing or damaged, or a field has a value of the wrong type.
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
            raise MergeError(f"{directory} contains no adapter tensors, so there is nothing to merge. Train it again.")
        if empty := sorted(name for name, tensor in tensors.items() if not tensor.nbytes):
            raise MergeError(
                f"{len(empty)} of {len(tensors)} adapter tensors in {directory} are empty, for example {empty[0]}. "
                "They were saved before FSDP had gathered them. Save the adapter again."
            )
        return cls(config, tensors)

    def require_finite(self) -> None:
        """Read every tensor once and check that all values are finite.

        Raises:
            MergeError: a tensor contains NaN or infinity.
        """
        for tensor in self.tensors.values():
            if not all(all_finite(tensor.load(rows)) for rows in row_blocks(tensor, _BLOCK_BYTES, 1)):
                raise MergeError(
                    f"the adapter tensor {tensor.name} contains NaN or infinity, so its training diverged. Train it "
                    "again, for example with a lower learning rate."
                )

    def changes(self, targets: Mapping[str, StoredTensor]) -> dict[str, Update]:
        """Return tensor name -> its update, for every tensor that changes.

        Args:
            targets: all tensors of the trained model by their names in the checkpoint.

        Raises:
            UnsupportedAdapterError: an update cannot be expressed as a weight.
            UnusedTensorsError: some adapter tensors do not match any base tensor.
            MergeError: shapes do not fit, or half of a pair is missing.
        """
        lookup = _Lookup(self, targets)
        updates = {name: lookup.update(target) for name, target in targets.items()}
        if lookup.unused:
            lookup.refuse_homeless_biases()
            raise UnusedTensorsError(
                f"{len(lookup.unused)} adapter tensors do not match any tensor of the base: "
                f"{', '.join(sorted(lookup.unused)[:5])}{' …' if len(lookup.unused) > 5 else ''}. Merge into the base "
                "that the adapter was trained on."
            )
        return {name: update for name, update in updates.items() if update != Update()}

    def scale(self, key: str, rank: int) -> float:
        """Return the factor of the update of a module: alpha / rank, or alpha / sqrt(rank) with rsLoRA.

        Args:
            key: the name that alpha_pattern is matched against.
            rank: the rank of the module's tensor, which already reflects rank_pattern.
        """
        patterns = self.config.get("alpha_pattern") or {}
        # peft.utils.other.get_pattern_key
        matches = (value for pattern, value in patterns.items() if re.match(rf"(.*\.)?({pattern})$", key))
        alpha = float(next(matches, self.config.get("lora_alpha", 8)))  # 8: LoraConfig's default
        return alpha / (math.sqrt(rank) if self.config.get("use_rslora") else rank)

    def pattern_key(self, name: str) -> str:
        """Return the name that alpha_pattern is matched against.

        This is the parameter's name if target_parameters lists it, and its module's name otherwise.
        """
        targets = self.config.get("target_parameters") or ()
        return name if any(f".{name}".endswith(f".{target}") for target in targets) else name.rpartition(".")[0]

    def trains(self, name: str) -> bool:
        """Return whether the complete tensor was trained (modules_to_save). Other saved tensors are frozen copies."""
        module = name.rpartition(".")[0]
        return any(f".{module}".endswith(f".{entry}") for entry in self.config.get("modules_to_save") or ())

    def token_indices(self, module: str) -> Sequence[int] | None:
        """Return the trained rows of an embedding. A plain list in the configuration means the input embedding."""
        indices = self.config.get("trainable_token_indices")
        by_module = indices if isinstance(indices, dict) else {module: indices}
        return next((rows for key, rows in by_module.items() if f".{module}".endswith(f".{key}")), None)


class _Lookup:
    """The adapter's tensors. Those that no base tensor has used so far are in `unused`."""

    def __init__(self, adapter: LoraAdapter, targets: Mapping[str, StoredTensor]) -> None:
        self._adapter = adapter
        self.unused = set(adapter.tensors)
        self._experts: dict[str, int] = {}  # MoE layer -> its number of experts
        for match in filter(None, map(_EXPERT.fullmatch, targets)):
            self._experts[match[1]] = max(self._experts.get(match[1], 0), int(match[2]) + 1)

    def _take(self, module: str, suffix: str) -> StoredTensor | None:
        # transformers 5 and Mixtral's checkpoints use different names for the block of experts.
        for name in (module, module.replace(".block_sparse_moe.", ".mlp.")):
            if (tensor := self._adapter.tensors.get(f"{PEFT_PREFIX}{name}.{suffix}")) is not None:
                self.unused.discard(tensor.name)
                return tensor
        return None

    def update(self, target: StoredTensor) -> Update:
        """Return the update of one base tensor."""
        module, _, leaf = target.name.rpartition(".")
        found = [self._take(module, f"{wrapper}{leaf}") for wrapper in WRAPPERS]
        saved = next(filter(None, found), None)
        if saved and TABLE.fullmatch(target.name) and saved.shape[1:] == target.shape[1:]:
            target = dataclasses.replace(target, shape=saved.shape)  # the vocabulary may have been resized
        if leaf != "weight":
            update = Update(saved, self._bias(module) if leaf == "bias" else ())
            _check_fit(target, [(saved, target.shape), *((factor.b, target.shape) for factor in update.factors)])
            return update
        factors = self._factors(module, target) or self._expert(target)
        magnitude = self._take(module, "lora_magnitude_vector")
        if self._adapter.config.get("use_dora") and factors and magnitude is None:
            raise MergeError(
                f"the adapter uses DoRA, but it has no lora_magnitude_vector for {module}. Save the adapter again."
            )
        if magnitude is not None and not factors:
            raise MergeError(
                f"the adapter has a lora_magnitude_vector for {module}, but no lora_A. Save the adapter again."
            )
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
            raise MergeError(f"the adapter has only one of lora_A and lora_B for {module}. Save the adapter again.")
        out, width = target.shape if len(target.shape) == 2 else (0, 0)
        if transposed:
            out, width = width, out
        rank = (*a.shape, 1)[0]
        _check_fit(target, [(a, (rank, width)), (b, (out, rank))])
        trained = re.sub(r"\.lora_(A\.weight|embedding_A)$", "", a.name.removeprefix(PEFT_PREFIX))
        scale = self._adapter.scale(self._adapter.pattern_key(f"{trained}.weight"), rank)
        return (LowRank(a, b, scale, transposed=transposed),)

    def _bias(self, module: str) -> tuple[LowRank, ...]:
        b = self._take(module, "lora_B.bias")
        if b is None:
            return ()
        a = self._adapter.tensors.get(f"{PEFT_PREFIX}{module}.lora_A.weight")
        if a is None:
            raise MergeError(f"the adapter has lora_B.bias for {module}, but no lora_A. Save the adapter again.")
        return (LowRank(None, b, self._adapter.scale(module, (*a.shape, 1)[0])),)

    def _expert(self, target: StoredTensor) -> tuple[LowRank, ...]:
        match = _EXPERT.fullmatch(target.name)
        if match is None or len(target.shape) != 2:
            return ()
        layer, index, gate, up = match.groups()
        rows, count = target.shape[0], self._experts[layer]
        parameter, height = ("gate_up_proj", 2 * rows) if gate or up else ("down_proj", rows)
        part = (rows, height) if up else (0, rows) if gate else None
        # PEFT nests the factors of the two parameters of a module (base_layer), and the file does not record the order
        # of nesting. The shapes distinguish them: gate_up is (2 I, H) and down is (H, I), which are never equal.
        for level in ("", "base_layer."):
            names = [f"{PEFT_PREFIX}{layer}.mlp.experts.{level}lora_{which}.weight" for which in "AB"]
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
                f"the adapter contains trained rows of {module}, which has {rows} rows, but its "
                f"trainable_token_indices are {indices!r:.200}. Save the adapter again."
            )
        _check_fit(target, [(values, (len(indices), *target.shape[1:]))])
        return TokenRows(tuple(indices), values)

    def refuse_homeless_biases(self) -> None:
        """Refuse trained biases (lora_bias) of layers that have no bias in the base. PEFT refuses them too.

        Raises:
            UnsupportedAdapterError: there is such a bias.
        """
        if homeless := sorted(name for name in self.unused if name.endswith(".lora_B.bias")):
            raise UnsupportedAdapterError(
                f"lora_bias: the adapter adds a bias to layers without one in the base, for example {homeless[0]} "
                f"({len(homeless)} in total). Train with lora_bias=False."
            )


def _check_fit(target: StoredTensor, expected: Sequence[tuple[StoredTensor | None, tuple[int, ...]]]) -> None:
    for tensor, shape in expected:
        if tensor is None:
            continue
        if tensor.shape != shape:
            raise MergeError(
                f"the adapter tensor {tensor.name} has the shape {list(tensor.shape)}, but {target.name} of the base "
                f"needs {list(shape)}. Merge into the base that the adapter was trained on, with the same vocabulary."
            )
        if target.dtype not in FLOATS:
            raise UnsupportedModelError(
                f"the adapter changes {target.name}, whose dtype {target.dtype} cannot be merged. Use a base with "
                f"{', '.join(FLOATS)} weights."
            )
