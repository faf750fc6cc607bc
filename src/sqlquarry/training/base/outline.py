"""Read a base model's configuration, tokenizer and headers, wherever they are stored, but not its weights."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.download import SMALL_FILES
from sqlquarry.aws.failures import aws_errors
from sqlquarry.aws.prefix import S3Prefix
from sqlquarry.checkpoints.model_files import weight_files
from sqlquarry.checkpoints.safetensors_header import parse_header
from sqlquarry.errors import MetadataError, ModelError, UnsupportedModelError
from sqlquarry.files.locations import S3Location, is_hub_id, located
from sqlquarry.files.metadata import file_name, read_object
from sqlquarry.pretrained import check_config, load_tokenizer
from sqlquarry.text import first_of
from sqlquarry.tokenizing.tokenizer import Tokenizer
from sqlquarry.training.base.base_model import check_base_model, download, resolve_base_model
from sqlquarry.training.base.known_bases import known_shape
from sqlquarry.training.base.shape import ModelShape, TensorHeader
from sqlquarry.training.base.token_estimator import TokenEstimator

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client


@dataclass(frozen=True, slots=True)
class BaseOutline:
    """A base model without its weights.

    Args:
        shape: the base's sizes.
        tokenizer: the base's tokenizer, or a `TokenEstimator`.
        estimated: why the tokenizer is a `TokenEstimator`, or "" if it is the base's own.
        directory: the directory with the weights, if they are on this machine.
    """

    shape: ModelShape
    tokenizer: Tokenizer
    estimated: str = ""
    directory: Path | None = None


def read_outline(base_model: str | Path, *, s3: Callable[[], S3Client], exact: bool = False) -> BaseOutline:
    """Read the parts of a base model that a plan needs. The largest file that is downloaded is tokenizer.json.

    A `.gguf` file is converted once, because its tokenizer cannot be read otherwise.

    Args:
        base_model: a directory, a `.gguf` file, an ``s3://`` prefix or a Hugging Face id.
        s3: creates an S3 client. It is called for an ``s3://`` prefix only.
        exact: False uses a table of well-known bases and estimates tokens if the hub cannot be reached or requires
            that a license is accepted first.

    Raises:
        UnsupportedModelError: there is no usable model.
        GatedModelError: the hub requires an accepted license or a token.
    """
    name = str(base_model)
    if isinstance(location := located(base_model), S3Location):
        return _on_s3(location, s3)
    if not is_hub_id(name):
        return _in(resolve_base_model(base_model))
    try:
        directory = download(name, SMALL_FILES)
    except ModelError as error:
        shape = None if exact else known_shape(name)
        if shape is None:
            raise
        return BaseOutline(shape, TokenEstimator(), f"the tokenizer cannot be read ({error})")
    check_base_model(directory, weights=False)
    if all(path.is_file() for path in weight_files(directory)):
        return _in(directory)
    check_config(directory)
    tensors = _hub_tensors(name, revision=directory.name)
    return BaseOutline(ModelShape.of(read_object(directory / "config.json"), tensors), load_tokenizer(directory))


def _in(directory: Path) -> BaseOutline:
    check_config(directory)
    return BaseOutline(ModelShape.read(directory), load_tokenizer(directory), directory=directory)


def _hub_tensors(name: str, revision: str) -> dict[str, TensorHeader]:
    """Return dtypes and shapes of all tensors from the headers, which are the first kilobytes of each file."""
    from huggingface_hub import HfApi

    try:
        files = HfApi().get_safetensors_metadata(name, revision=revision).files_metadata
    except Exception as error:  # whatever the HTTP library raises, and files that are not safetensors
        raise UnsupportedModelError(
            f"the headers of the weights of {name} cannot be read from the hub ({type(error).__name__}: {error}). "
            "Check that it has safetensors files, check the connection, or use a local directory."
        ) from error
    return {
        tensor: (str(info.dtype), tuple(info.shape)) for file in files.values() for tensor, info in file.tensors.items()
    }


def _on_s3(location: S3Location, s3: Callable[[], S3Client]) -> BaseOutline:
    with aws_errors(UnsupportedModelError, f"reading the base model {location}"):
        prefix = S3Prefix(s3(), location)
        sizes = {name: item.size for name, item in prefix.objects().items()}
        if not sizes:
            raise UnsupportedModelError(f"the base model cannot be read: {prefix.why_empty()}")
        with tempfile.TemporaryDirectory() as here:
            try:
                return _fetched(prefix, Path(here), sizes)
            except MetadataError as error:
                raise UnsupportedModelError(f"base model {location}: {error}. Copy it to S3 again.") from error
            except UnsupportedModelError as error:  # the temporary directory is gone when a user reads the message
                raise UnsupportedModelError(str(error).replace(here, str(location))) from error


def _fetched(prefix: S3Prefix, directory: Path, sizes: Mapping[str, int]) -> BaseOutline:
    """Copy the small files into a directory, read the headers from S3, and return the outline."""
    for name in sizes:
        if any(fnmatch(name, pattern) for pattern in SMALL_FILES):
            (directory / file_name(name, str(prefix.location))).write_bytes(prefix.read(name))
    config = check_base_model(directory, weights=False)
    check_config(directory)
    weights = [path.name for path in weight_files(directory)]
    if lost := [name for name in weights if name not in sizes]:
        raise UnsupportedModelError(f"{prefix.location} lacks {first_of(lost, 1)}. Copy the base model to S3 again.")
    headers = [parse_header(name, sizes[name], partial(prefix.read_range, name)) for name in weights]
    tensors = {name: (one.dtype, one.shape) for header in headers for name, one in header.tensors.items()}
    return BaseOutline(ModelShape.of(config, tensors), load_tokenizer(directory))
