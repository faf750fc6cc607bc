"""AdapterMerger: from a finished adapter to a full model in safetensors."""

from __future__ import annotations

import importlib.metadata
import statistics
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from sqlquarry.artifacts import AdapterCheckpoint, Manifest, MergedModel, read_manifest, write_manifest
from sqlquarry.errors import ConfigError, MergeError
from sqlquarry.extras import require
from sqlquarry.merging.adapter import LoraAdapter, Update, all_finite
from sqlquarry.merging.base import BaseCheckpoint
from sqlquarry.merging.output import OutputDirectory, OutputShard, plan_shards
from sqlquarry.merging.tensorfile import FLOATS, StoredTensor
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.quantization import QuantizationRecipe

if TYPE_CHECKING:
    import torch

_Base = Literal["auto", "original", "dequantized"]
_THREADS = 2  # torch releases the GIL; more threads would hold more tensors in memory
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


@dataclass(frozen=True, slots=True)
class AdapterMerger:
    """Merge a LoRA adapter into its base model, tensor by tensor: fp32 arithmetic, then one cast to the base's dtype.

    Args:
        base: the weights to add to: "original" (as in the checkpoint), "dequantized" (the 4-bit values that the adapter
            was trained on), or "auto": dequantized exactly where the adapter was trained on 4-bit weights.
        base_model: directory of the base model; None takes the one that the adapter's manifest names.
        max_shard_bytes: larger shards of the base are split.

    Raises:
        ConfigError: an option cannot work.
    """

    base: _Base = "auto"
    _: KW_ONLY
    base_model: str | Path | None = None
    max_shard_bytes: int = 5_000_000_000

    def __post_init__(self) -> None:
        bad = []
        if self.base not in get_args(_Base):
            bad.append(f"base is {self.base!r}, but must be one of {', '.join(get_args(_Base))}")
        if self.max_shard_bytes < 1:
            bad.append(f"max_shard_bytes is {self.max_shard_bytes}, but must be at least 1")
        if bad:
            raise ConfigError("AdapterMerger: " + "; ".join(bad))

    def merge(self, adapter: AdapterCheckpoint, output: str | Path) -> MergedModel:
        """Write the full model to `output`; a finished merge of the same inputs is returned as it stands.

        An interrupted merge goes on where it stopped. Peak memory is that of the two largest tensors in work.

        Args:
            adapter: what the trainer wrote.
            output: a new or empty directory, or the one of an interrupted run.

        Raises:
            ConfigError: `output` or `base` cannot work for this adapter.
            CorruptArtifactError: a file of the adapter differs from its manifest.
            PromptMismatchError: the adapter's prompt is not the one it was trained with.
            UnsupportedAdapterError: the merge would be wrong, with the reason.
            UnsupportedModelError: the base is quantised itself, or not safetensors.
            UnusedTensorsError: adapter tensors fit nothing in the base.
            MergeError: base, adapter, output directory or disk do not fit, with the value.
        """
        manifest, trained_on, recipe = self._opened(adapter)
        base_kind = self._base_kind(recipe)
        directory = self._directory(output, base_kind, trained_on, manifest.digest)
        if (finished := directory.finished()) is not None:
            return finished
        lora = LoraAdapter.open(adapter.path)
        checkpoint = self._checkpoint(trained_on)
        merge = _TensorMerge(
            lora.updates(checkpoint.tensors, tied=checkpoint.tied),
            recipe if base_kind == "dequantized" else None,
            checkpoint.tensors,
        )
        lora.require_finite()
        return self._assemble(directory, checkpoint, merge, adapter)

    def package_base(self, adapter: AdapterCheckpoint, output: str | Path) -> MergedModel:
        """Write the adapter's base model unchanged, with the adapter's prompt: the other side of a fair comparison.

        Args:
            adapter: names the base model and holds the prompt.
            output: as for `merge`.

        Raises:
            MergeError: as for `merge`.
        """
        _, trained_on, _ = self._opened(adapter)
        directory = self._directory(output, "original", trained_on, None)
        if (finished := directory.finished()) is not None:
            return finished
        checkpoint = self._checkpoint(trained_on)
        return self._assemble(directory, checkpoint, _TensorMerge({}, None, checkpoint.tensors), adapter)

    def _opened(self, adapter: AdapterCheckpoint) -> tuple[Manifest, dict[str, str], QuantizationRecipe | None]:
        """The adapter's verified manifest, and what it was trained on."""
        require("merge", "AdapterMerger")
        manifest = read_manifest(adapter.path, AdapterCheckpoint.kind, verify=True)
        manifest.require_prompt(PromptFormatter.load(adapter.path).fingerprint)
        return manifest, *_provenance(manifest.provenance)

    def _directory(
        self, output: str | Path, base_kind: str, trained_on: Mapping[str, str], adapter_digest: str | None
    ) -> OutputDirectory:
        if str(output).startswith("s3://"):
            raise ConfigError(f"output {str(output)!r}: merging straight to S3 is not there yet. Give a directory.")
        inputs = {
            "base": base_kind,
            "base_sha256": trained_on["sha256"],
            "adapter_digest": adapter_digest,
            "max_shard_bytes": self.max_shard_bytes,
        }
        return OutputDirectory(Path(output), inputs)

    def _checkpoint(self, trained_on: Mapping[str, str]) -> BaseCheckpoint:
        checkpoint = BaseCheckpoint.open(Path(self.base_model or trained_on["path"]))
        checkpoint.require_digest(trained_on["sha256"])
        return checkpoint

    def _assemble(
        self, directory: OutputDirectory, checkpoint: BaseCheckpoint, merge: _TensorMerge, adapter: AdapterCheckpoint
    ) -> MergedModel:
        """Write shards, metadata and, last, the manifest."""
        shards = plan_shards(checkpoint.shards, self.max_shard_bytes)
        _write_shards(directory, shards, merge)
        directory.carry_over(checkpoint, adapter.path / PROMPT_FILE, shards)
        came_from = adapter.manifest.provenance
        provenance = {
            **{key: came_from.get(key) for key in ("base_model", "prompt_fingerprint", "quantization", "data_sha256")},
            "merge": directory.inputs | _statistics(directory.relative_updates),
            "versions": {name: importlib.metadata.version(name) for name in ("sqlquarry", "torch", "bitsandbytes")},
        }
        merged = MergedModel(directory.path, write_manifest(directory.path, MergedModel.kind, provenance))
        directory.close()
        return merged

    def _base_kind(self, recipe: QuantizationRecipe | None) -> str:
        if self.base == "dequantized" and recipe is None:
            raise ConfigError(
                "base='dequantized', but this adapter was trained on full-precision weights: there is no 4-bit recipe. "
                "Use base='auto'."
            )
        return ("original" if recipe is None else "dequantized") if self.base == "auto" else self.base


class _TensorMerge:
    """What becomes of each base tensor; safe to call from several threads."""

    def __init__(
        self,
        updates: Mapping[str, Update],
        recipe: QuantizationRecipe | None,
        tensors: Mapping[str, StoredTensor],
    ) -> None:
        self._updates = updates
        self._recipe = recipe
        self._quantized = {f"{module}.weight" for module in recipe.modules} if recipe else set()
        if missing := sorted(self._quantized - tensors.keys()):
            raise MergeError(
                f"the adapter was trained on 4-bit {missing[0]} ({len(missing)} such in all), which the base does not "
                "hold. Merge into the base that the adapter was trained on."
            )
        self.relative_updates: dict[str, float | None] = {}

    def __call__(self, tensor: StoredTensor) -> torch.Tensor | None:
        """The new value in the stored dtype; None where the stored bytes stay.

        Raises:
            MergeError: the result holds NaN or infinity.
        """
        import torch

        update = self._updates.get(tensor.name)
        if update is None and tensor.name not in self._quantized:
            return None
        weight = tensor.load()
        if self._recipe is not None and tensor.name in self._quantized:
            weight = self._recipe.round_trip(weight)
        dtype = getattr(torch, FLOATS[tensor.dtype][0])
        if update is None:
            merged = weight.to(dtype)
        else:
            merged, self.relative_updates[tensor.name] = update.apply(weight, dtype)
        if not all_finite(merged):
            raise MergeError(f"merging {tensor.name} gives NaN or infinity in {tensor.dtype}: check base and adapter")
        return merged


def _provenance(provenance: Mapping[str, Any]) -> tuple[dict[str, str], QuantizationRecipe | None]:
    """What the adapter was trained on: the base's name, path and sha256, and how it was quantised."""
    try:
        base = provenance["base_model"]
        trained_on = {key: str(base[key]) for key in ("name", "path", "sha256")}
        fields = provenance["quantization"]
        recipe = None if fields is None else QuantizationRecipe(**{**fields, "modules": tuple(fields["modules"])})
    except (KeyError, TypeError) as error:
        raise MergeError(
            f"the adapter's manifest does not say what it was trained on ({error}). Train it again with this version."
        ) from error
    return trained_on, recipe


def _statistics(relative_updates: Mapping[str, float | None]) -> dict[str, Any]:
    sizes = [value for value in relative_updates.values() if value is not None]
    return {
        "merged_tensors": len(relative_updates),
        "mean_relative_update": statistics.fmean(sizes) if sizes else None,
    }


def _write_shards(directory: OutputDirectory, shards: Iterable[OutputShard], merge: _TensorMerge) -> None:
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    left = directory.remaining(list(shards))
    console = Console(stderr=True)
    columns = (TextColumn("merging"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with (
        Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress,
        ThreadPoolExecutor(_THREADS) as pool,
    ):
        task = progress.add_task("merging", total=sum(tensor.nbytes for shard in left for tensor in shard.tensors))
        for shard in left:
            contents = _map_ahead(pool, merge, shard.tensors)
            shard.write(directory.path, contents, lambda nbytes: progress.advance(task, nbytes))
            names = {tensor.name for tensor in shard.tensors}
            directory.shard_done(shard, {k: v for k, v in merge.relative_updates.items() if k in names})


def _map_ahead(
    pool: ThreadPoolExecutor, function: Callable[[_Item], _Result], items: Iterable[_Item]
) -> Iterator[_Result]:
    """`pool.map` that works only `_THREADS` items ahead of its reader, so that results never pile up."""
    pending: deque[Future[_Result]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) == _THREADS:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
