"""Find and check a base model before anything expensive starts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from sqlquarry.aws.download import MODEL_FILES, download_files
from sqlquarry.checkpoints.foreign_model import refuse_foreign_code, require_no_refusals
from sqlquarry.checkpoints.model_files import check_model_files
from sqlquarry.errors import GatedModelError, MetadataError, UnsupportedModelError
from sqlquarry.files.digests import sha256_file
from sqlquarry.files.locations import S3Location, cache_folder, is_hub_id, local_path, located
from sqlquarry.files.metadata import read_object
from sqlquarry.pretrained import quiet_transformers
from sqlquarry.progress.bar import phase
from sqlquarry.training.base.gguf_file import check_gguf

if TYPE_CHECKING:
    import boto3

# Causal language models that Bedrock Custom Model Import supports (user guide, "custom model import", supported
# architectures) and whose linear layers PEFT's "all-linear" adapts.
ARCHITECTURES = (
    "LlamaForCausalLM",
    "MistralForCausalLM",
    "MixtralForCausalLM",
    "Qwen2ForCausalLM",
    "Qwen3ForCausalLM",
    "Qwen3MoeForCausalLM",
)


def resolve_base_model(
    base_model: str | Path, *, cache_dir: str | Path | None = None, session: boto3.Session | None = None
) -> Path:
    """Check a base model and return its local directory as an absolute path.

    Args:
        base_model: a directory, a ``.gguf`` file (converted to bf16 safetensors once), an ``s3://`` prefix (copied to
            this machine once) or a Hugging Face id.
        cache_dir: directory for conversions and copies. The default is ``~/.cache/sqlquarry``.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        UnsupportedModelError: there is no usable model.
        GatedModelError: the hub requires an accepted license or a token.
    """
    path = located(base_model)
    cache = cache_folder() if cache_dir is None else local_path(cache_dir, "cache_dir")
    if isinstance(path, S3Location):
        with phase(f"fetching {base_model}"):
            directory = download_files(path, UnsupportedModelError, patterns=MODEL_FILES, session=session, cache=cache)
    elif path.suffix == ".gguf" and path.is_file():
        directory = _converted(path, cache)
    elif path.is_dir():
        directory = path
    elif not is_hub_id(base_model):
        raise UnsupportedModelError(
            f"base model {str(base_model)!r} is not a directory, a .gguf file, an s3:// prefix or a hub id. "
            "Check the path. A hub id has the form owner/name."
        )
    else:
        directory = download(str(base_model), MODEL_FILES)
    check_base_model(directory)
    return directory.resolve()


def check_base_model(directory: Path, *, weights: bool = True) -> dict[str, object]:
    """Check a base model's files and return its config.json.

    Args:
        directory: the base model's directory.
        weights: False if the weights are elsewhere.

    Raises:
        UnsupportedModelError: files are missing or damaged (see `check_model_files`), there are two sets of weights,
            Bedrock cannot import the architecture, the checkpoint is quantized, or it requires its own code (see
            `refuse_foreign_code`).
    """
    missing = [file for file in ("config.json", "tokenizer_config.json") if not (directory / file).is_file()]
    if weights and not any(directory.glob("*.safetensors")):
        missing.append("*.safetensors")
    if missing:
        raise UnsupportedModelError(f"base model {directory} lacks {', '.join(missing)}. Save it with save_pretrained.")
    try:
        config = read_object(directory / "config.json")
    except (OSError, MetadataError) as error:
        raise UnsupportedModelError(f"base model {directory}: {error}. Download it again.") from error
    names = config.get("architectures")
    architecture = str(names[0]) if isinstance(names, list) and names else "(none)"
    if architecture not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"base model {directory} is a {architecture}, which Bedrock cannot import after training. "
            f"Use one of these architectures: {', '.join(ARCHITECTURES)}."
        )
    if "quantization_config" in config:
        settings = config["quantization_config"]
        method = settings.get("quant_method", "unknown") if isinstance(settings, dict) else "unknown"
        raise UnsupportedModelError(
            f"base model {directory} is already quantized ({method}), but QLoRA quantizes the base itself and merges "
            "into full weights. Use the original bf16 or fp16 checkpoint."
        )
    refuse_foreign_code(directory)
    if weights:
        check_model_files(directory)
    return config


def download(name: str, patterns: Iterable[str]) -> Path:
    """Download files of a hub repository into the hub's cache, and return their directory.

    Args:
        name: the repository's id.
        patterns: patterns of the file names (``*.json``).

    Raises:
        UnsupportedModelError: the files are not in the cache and the hub cannot be reached.
        GatedModelError: the hub requires an accepted license or a token.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=list(patterns)))
    except GatedRepoError as error:
        raise GatedModelError(
            f"{name} is gated. Accept its license on its hub page, then set HF_TOKEN or run `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise GatedModelError(
            f"{name} does not exist on the hub, or is private. Check the spelling, or set HF_TOKEN to a token with "
            "access to it."
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise UnsupportedModelError(
            f"{name} is not in the local cache and the hub cannot be reached ({type(error).__name__}). "
            "Use a local directory, or try again with a connection."
        ) from error


def _converted(gguf: Path, cache: Path) -> Path:
    """Convert a GGUF file to bf16 safetensors once, and return the directory, whose name depends on the content."""
    target = cache / f"{gguf.stem}-{sha256_file(gguf)[:16]}"
    if not target.is_dir():
        check_gguf(gguf)
        cache.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(dir=cache, prefix=f".{gguf.stem}-"))
        try:
            # transformers also loads tokenizer, template, adapter and code from the folder of a GGUF file.
            with quiet_transformers(), tempfile.TemporaryDirectory() as alone, phase(f"converting {gguf.name}"):
                (Path(alone) / gguf.name).symlink_to(gguf.resolve())
                _convert(Path(alone) / gguf.name, draft)
        except Exception as error:  # transformers and gguf raise many kinds of errors for malformed files
            raise UnsupportedModelError(
                f"{gguf} cannot be converted ({type(error).__name__}: {error}). Use the model's safetensors instead."
            ) from error
        else:
            try:
                os.replace(draft, target)  # noqa: PTH105 - Path.replace reads worse with two directories
            except OSError:
                if not target.is_dir():  # Otherwise another process has converted the same file.
                    raise
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    return target


def _convert(gguf: Path, target: Path) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    known = AutoConfig.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    require_no_refusals({"config.json": json.loads(known.to_json_string(use_diff=False))}, gguf)
    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    source = AutoModelForCausalLM.from_pretrained(
        gguf.parent, gguf_file=gguf.name, dtype=torch.float32, trust_remote_code=False
    )
    # A model that was loaded from GGUF still has its quantizer and cannot be saved (transformers 5), but a copy can.
    config = type(source.config)(
        **{
            key: value
            for key, value in source.config.to_dict().items()
            if key not in ("quantization_config", "_name_or_path", "transformers_version", "unk_token_id")
        }
    )
    fresh = type(source)(config).to(torch.bfloat16)
    fresh.load_state_dict({key: value.to(torch.bfloat16) for key, value in source.state_dict().items()})
    fresh.tie_weights()
    fresh.generation_config, fresh.config.dtype = source.generation_config, torch.bfloat16
    fresh.save_pretrained(target)
    # Some versions of transformers (5.17, integrations/ggml.py) make BOS the tokenizer's EOS. The config is right.
    for name in ("bos_token", "eos_token", "pad_token"):
        if isinstance(number := getattr(config, f"{name}_id"), int):
            setattr(tokenizer, name, tokenizer.convert_ids_to_tokens(number))
    tokenizer.save_pretrained(target)
