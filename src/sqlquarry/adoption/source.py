"""Bring the files of an adapter to this machine: from a directory, the Hugging Face hub, or S3."""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.download import copy_here
from sqlquarry.aws.prefix import S3Prefix, StoredObject
from sqlquarry.errors import AdoptionError, SQLQuarryError
from sqlquarry.files.locations import S3Location, is_hub_id, located
from sqlquarry.files.metadata import relative_name
from sqlquarry.manifests import MANIFEST
from sqlquarry.text import first_of
from sqlquarry.training.base.base_model import download

if TYPE_CHECKING:
    import boto3

CONFIG = "adapter_config.json"
SAFETENSORS = "adapter_model.safetensors"
PICKLE = "adapter_model.bin"
# All files that the tokenizers of Llama, Mistral and Qwen models consist of.
TOKENIZER_FILES = (
    "added_tokens.json",
    "chat_template.jinja",
    "merges.txt",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "vocab.json",
)
# Axolotl describes its training in config.json and README.md. Subfolders are only named in messages.
_SMALL = (CONFIG, f"*/{CONFIG}", "config.json", "README.md", MANIFEST, *TOKENIZER_FILES)


def fetch_adapter(adapter: str | Path, session: boto3.Session | None = None) -> Path:
    """Return the directory of an adapter. Of a hub repository or S3 prefix, copy only what an adapter consists of.

    ``adapter_model.bin`` is copied only if ``adapter_model.safetensors`` is missing.

    Args:
        adapter: a directory, a hub id, or an ``s3://`` prefix.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        AdoptionError: the directory does not exist, or the prefix has no adapter.
        UnsupportedModelError: the hub cannot be reached.
        GatedModelError: the hub repository does not exist, or it requires a token.
    """
    place = located(adapter)
    if isinstance(place, S3Location):
        return _from_s3(place, session)
    if place.is_dir():
        return place
    if not is_hub_id(adapter):
        found = "a file. Pass its directory" if place.is_file() else "not a directory, an s3:// prefix or a hub id"
        raise AdoptionError(f"the adapter {str(adapter)!r:.300} is {found}. A hub id has the form owner/name.")
    directory = download(str(adapter), (*_SMALL, SAFETENSORS))
    return directory if (directory / SAFETENSORS).is_file() else download(str(adapter), (*_SMALL, PICKLE))


@contextmanager
def named_errors(directory: Path, origin: Path | S3Location) -> Iterator[None]:
    """Name the place that the caller gave in errors, instead of the directory to which its files were copied."""
    try:
        yield
    except SQLQuarryError as error:
        error.args = (str(error).replace(str(directory), str(origin)),)
        raise


def _from_s3(location: S3Location, session: boto3.Session | None) -> Path:
    def wanted(prefix: S3Prefix) -> dict[str, StoredObject]:
        objects = prefix.objects(deep=True, limit=10_000)
        weights = SAFETENSORS if SAFETENSORS in objects else PICKLE
        patterns = (*_SMALL, weights)
        chosen = {
            name: item
            for name, item in objects.items()
            if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns) and relative_name(name, str(location))
        }
        if objects and not chosen:
            raise AdoptionError(
                f"{location} contains no file of an adapter, but {first_of(sorted(objects))}. Pass the prefix of the "
                f"folder that contains {CONFIG}."
            )
        return chosen

    return copy_here(location, AdoptionError, wanted, selection="adapter", session=session)
