"""Check the files in the directory of an adapter before any of its tensors is read."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from sqlquarry.adoption.source import CONFIG, PICKLE, SAFETENSORS, TOKENIZER_FILES
from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.checkpoints.foreign_model import CONFIG_SUFFIX, require_no_refusals
from sqlquarry.checkpoints.model_files import pointer_problem
from sqlquarry.errors import AdoptionError, MergeError, MetadataError, UnsupportedAdapterError
from sqlquarry.files.metadata import JsonObject, read_bytes, read_object
from sqlquarry.manifests import MANIFEST, Manifest
from sqlquarry.merging.refusals import refuse_malformed, refuse_unmergeable
from sqlquarry.text import first_of

# LLaMA-Factory's folders with the adapter before training, and with the adapter for its changed base.
_PISSA_FOLDERS = ("pissa_init", "pissa_backup")
_TASKS = (None, "", "CAUSAL_LM")


@dataclass(frozen=True, slots=True)
class AdapterFiles:
    """The files of an adapter that can be merged, as far as its configuration tells.

    Args:
        directory: the directory.
        config: content of adapter_config.json.
        weights: the file with the tensors.
    """

    directory: Path
    config: JsonObject
    weights: Path

    @classmethod
    def open(cls, directory: Path) -> AdapterFiles:
        """Find and check the files.

        Raises:
            AdoptionError: the directory is not one adapter, or a file is damaged.
            UnsupportedAdapterError: this kind of adapter cannot be merged.
            UnsupportedModelError: a configuration asks for custom code.
        """
        if directory.resolve().name in _PISSA_FOLDERS:
            raise UnsupportedAdapterError(
                f"{directory} belongs to a base that PiSSA has changed, but the checkpoint has the original one. Pass "
                "the folder pissa_converted beside it, or convert the adapter with PEFT (path_initial_model_for_weight"
                "_conversion)."
            )
        if not (directory / CONFIG).is_file():
            raise AdoptionError(f"{directory} is not an adapter: {_contents(directory)}")
        _refuse_own(directory)
        weights = _weights(directory)
        config = _config(directory, weights)
        _refuse_kinds(config, directory)
        return cls(directory, config, weights)

    @property
    def has_tokenizer(self) -> bool:
        """Whether the adapter has a tokenizer of its own, or some files of one."""
        return any((self.directory / name).is_file() for name in TOKENIZER_FILES)


def _contents(directory: Path) -> str:
    """Describe a directory that has no adapter_config.json, and say what to pass instead."""
    inside = sorted((path.parent.name for path in directory.glob(f"*/{CONFIG}")), key=lambda name: (len(name), name))
    if inside:
        return f"there are adapters in its subfolders. Pass one of them: {first_of(inside, 5)}."
    if any((directory / name).is_file() for name in (SAFETENSORS, PICKLE)):
        return f"it has weights, but no {CONFIG}. Copy that file from the training's output."
    if (directory / "config.json").is_file():
        return "it is a complete model. Adopt it with sq.adopt_model(directory)."
    names = sorted(path.name for path in directory.iterdir())
    return f"it contains {first_of(names, 5) or 'no files'}. Pass the directory that contains {CONFIG}."


def _refuse_own(directory: Path) -> None:
    """Refuse an adapter of this library, whose manifest records what the caller would have to state here."""
    try:
        own = Manifest.parse(read_bytes(directory / MANIFEST), MANIFEST).kind == AdapterCheckpoint.kind
    except (OSError, MetadataError):  # the manifest is missing, or belongs to another program
        return
    if own:
        raise AdoptionError(
            f"{directory} already contains an artifact of this library. Load it with sq.AdapterCheckpoint.load. If "
            f"another tool has trained it further, remove {MANIFEST}, and adopt it again."
        )


def _weights(directory: Path) -> Path:
    """Return the file with the weights. Like PEFT, prefer safetensors and leave the pickle unread."""
    for name in (SAFETENSORS, PICKLE):
        if (directory / name).is_file():
            return directory / name
    others = sorted(path.name for path in directory.glob("adapter_model*"))
    others = others or sorted(path.name for path in directory.iterdir() if path.suffix in (".safetensors", ".bin"))
    raise AdoptionError(
        f"{directory} has {CONFIG}, but no {SAFETENSORS} or {PICKLE}"
        f"{f', only {first_of(others)}' if others else ''}. Save the adapter again into one file with "
        "model.save_pretrained."
    )


def _config(directory: Path, weights: Path) -> JsonObject:
    names = [name for name in (*TOKENIZER_FILES, "config.json", CONFIG) if (directory / name).is_file()]
    for name in (*names, weights.name):
        with (directory / name).open("rb") as file:
            if problem := pointer_problem(name, file.read(64)):
                raise AdoptionError(f"the adapter in {directory} is damaged: {problem}. Download it again.")
    try:
        files = {name: read_object(directory / name) for name in names if name.endswith(CONFIG_SUFFIX)}
    except (OSError, ValueError) as error:
        raise AdoptionError(f"a file of the adapter in {directory} cannot be read ({error}). Save it again.") from error
    with adopting(f"the adapter in {directory} cannot be used"):
        refuse_malformed(files[CONFIG])
    _hint_at_conversion(files[CONFIG], directory)
    refuse_unmergeable(files[CONFIG])
    require_no_refusals(files, directory)
    return files[CONFIG]


def _hint_at_conversion(config: JsonObject, directory: Path) -> None:
    converted = directory / "pissa_converted"
    if str(config.get("init_lora_weights")).startswith("pissa") and (converted / CONFIG).is_file():
        raise UnsupportedAdapterError(
            f"{directory} has init_lora_weights {config['init_lora_weights']!r}, so it belongs to a changed base. Pass "
            f"its plain LoRA form: {converted}."
        )


def _refuse_kinds(config: JsonObject, directory: Path) -> None:
    if (task := config.get("task_type")) not in _TASKS:
        raise UnsupportedAdapterError(
            f"the adapter in {directory} has task_type {task!r:.80}, but only language models (CAUSAL_LM) write SQL."
        )


@contextmanager
def adopting(what: str) -> Iterator[None]:
    """Convert errors of merging to AdoptionError, except for kinds of adapters that cannot be merged.

    Args:
        what: the beginning of the message.
    """
    try:
        yield
    except UnsupportedAdapterError:
        raise
    except MergeError as error:
        raise AdoptionError(f"{what}: {error}") from error
