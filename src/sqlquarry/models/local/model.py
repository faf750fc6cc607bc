"""A language model on this machine: a merged model, an adapter on its base model, or any other causal model."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from sqlquarry.answers import Generation
from sqlquarry.artifacts import AdapterCheckpoint, MergedModel
from sqlquarry.checkpoints.attention import position_limit
from sqlquarry.errors import ConfigError
from sqlquarry.extras import require
from sqlquarry.inputs import check_inputs, option_problems
from sqlquarry.models.local.constraints import Vocabulary
from sqlquarry.models.local.decoding import Decoder, DecodingOptions
from sqlquarry.models.local.prefill import PromptReader
from sqlquarry.models.local.source import LocalModelSource
from sqlquarry.models.local.token_rows import run_token_rows_directly
from sqlquarry.options import check_options
from sqlquarry.pretrained import load_causal_lm, pick_device, reading_model
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.prompt import PROMPT_FILE, PromptFormatter
from sqlquarry.quantization import QuantizationRecipe
from sqlquarry.records import Record
from sqlquarry.text import lone_surrogate, visible_logger
from sqlquarry.tokenizing.control_tokens import note_in_prompts, stop_token_id

if TYPE_CHECKING:
    import boto3
    from transformers import PreTrainedModel, PreTrainedTokenizerFast

logger = visible_logger(__name__)
DEFAULT_DECODING = DecodingOptions()


@check_options()
class LocalModel:
    """A causal language model on this machine. It is a `TextGenerator`, and must not be shared between threads.

    It computes in float32 on a CPU and in bfloat16 on CUDA.

    Args:
        model: a `MergedModel` or an `AdapterCheckpoint`, which answers records with the prompt that it was trained
            with. It can also be the directory or ``s3://`` prefix of any other model, with config, tokenizer and
            safetensors in the format of transformers or of Bedrock. Models on S3 are copied to ``~/.cache/sqlquarry``
            once. The base model of an adapter is quantized as in training.
        formatter: for the directory of a model only: how to render records, and which token ends an answer. A formatter
            that is not bound yet is bound to the model's tokenizer. It can be None if all inputs are texts.
        base_model: the current location of an adapter's base model. Its content is compared by SHA-256. None uses the
            location that training recorded.
        device: "auto" (CUDA if there is a GPU), "cpu" or "cuda".
        batch_size: number of prompts that are decoded together.
        max_tokens: longest answer of `generate`, in tokens.
        session: the boto3 session for S3. None uses the default credentials.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        UnsupportedModelError: the directory contains no causal language model in safetensors, the model or adapter
            needs code of its own, a file is malformed, or the adapter's base model is missing or has other content.
        IncompleteArtifactError: the directory of a merged model or adapter contains no prompt.
        DeviceError: `device` is "cuda", but there is no GPU.
        ConfigError: the device is unknown, an option is out of range, or the formatter does not fit the tokenizer.
    """

    def __init__(
        self,
        model: str | Path | MergedModel | AdapterCheckpoint,
        *,
        formatter: PromptFormatter | None = None,
        base_model: str | Path | None = None,
        device: Literal["auto", "cpu", "cuda"] = "auto",
        batch_size: int = 16,
        max_tokens: int = 256,
        session: boto3.Session | None = None,
    ) -> None:
        require("train", "LocalModel")
        if bad := option_problems({"batch_size": batch_size, "max_tokens": max_tokens}, {}):
            raise ConfigError("LocalModel: " + "; ".join(bad))
        source = LocalModelSource.of(model, formatter=formatter, base_model=base_model, session=session)
        self.device = pick_device(device)
        source.check()
        self.directory, self.batch_size, self.max_tokens = source.directory, batch_size, max_tokens
        self.tokenizer: PreTrainedTokenizerFast = source.load_tokenizer()
        self.formatter = source.formatter.bind(self.tokenizer) if source.formatter else None
        self.model = _load(source, self.device)
        self._source = source
        self._adapter_digest = source.adapter.manifest.digest if source.adapter else ""
        self._noted_control_tokens = False
        self._reader = PromptReader(self.model, self.device)
        self._eos_ids = self._ending_ids()
        self._context_tokens = position_limit(self.model.config.get_text_config().to_dict())

    def __repr__(self) -> str:
        return f"LocalModel({str(self.directory)!r})"

    @property
    def fingerprint(self) -> str:
        """A text that changes if weights, adapter, prompt or limits change. Answers are reused only if it is equal."""
        files = sorted((path.name, path.stat()) for path in self.directory.iterdir() if path.is_file())
        parts = [
            str(self.directory.resolve()),
            *(f"{name} {stat.st_size} {stat.st_mtime_ns}" for name, stat in files),
            self._adapter_digest,
            self.formatter.fingerprint if self.formatter else "",
            str(self.max_tokens),
            self.device,
        ]
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Answer each input greedily, in order.

        Raises:
            ConfigError: `inputs` contains records, but there is no formatter to render them. Also as for `complete`.
        """
        check_inputs(inputs)
        prompts = [item if isinstance(item, str) else self._rendered(item) for item in inputs]
        if not self._noted_control_tokens:
            note = note_in_prompts((item for item in inputs if isinstance(item, Record)), self.tokenizer)
            self._noted_control_tokens = note is not None
            if note:
                logger.warning(note)
        with ProgressBar(f"generate with {self.directory.name}", len(prompts), brief=True) as bar:
            return self.complete(prompts, DecodingOptions(max_tokens=self.max_tokens), advance=bar.advance)

    def complete(
        self,
        prompts: Sequence[str],
        options: DecodingOptions = DEFAULT_DECODING,
        *,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[Generation]:
        """Complete text prompts, in order.

        Prompts are decoded in batches of `batch_size`. If several prompts of a batch start with the same text, such as
        instructions and schema, that text is computed once.

        Args:
            prompts: texts, with special tokens written as text.
            options: how to choose tokens and when to stop.
            advance: function that is called after each batch with the number of prompts in it.

        Raises:
            ConfigError: `prompts` is not a list of texts, a prompt has no tokens or leaves no room in the model's
                context, an option uses a token id that the model does not have, or the constraint does not fit the
                tokenizer.
        """
        import torch

        check_inputs(prompts, method="complete", records=False)
        options.check_token_ids(self._rows)
        # A formatter without special tokens belongs to a model that never saw them in training.
        adds = options.add_special_tokens and (self.formatter is None or self.formatter.add_special_tokens)
        encoded = self._encoded(prompts, add_special_tokens=adds)
        self._require_rows(encoded)
        decoder = Decoder(
            self._reader,
            self.tokenizer,
            self._vocabulary,
            options,
            eos_ids=self._eos_ids,
            context_tokens=self._context_tokens,
            device=self.device,
        )
        answers: list[Generation] = []
        with torch.inference_mode():
            for start in range(0, len(encoded), self.batch_size):
                answers += decoder.decode(encoded[start : start + self.batch_size])
                advance(len(answers) - start)
        return answers

    def _rendered(self, record: Record) -> str:
        if self.formatter is None:
            has_prompt = (self.directory / PROMPT_FILE).is_file()
            other = (
                "open the model with its own prompt: LocalModel(MergedModel.load(…))" if has_prompt else "give texts"
            )
            raise ConfigError(f"LocalModel needs formatter= to answer records. Pass one, or {other}.")
        return self.formatter.prompt(record)

    def _ending_ids(self) -> frozenset[int]:
        """Return the ids of the tokens that end an answer."""
        bound = self.formatter.tokens if self.formatter else None
        stop = stop_token_id(self.tokenizer, bound.stop) if bound else None  # the same token that the export uses
        eos = self._source.stops(self.model.generation_config.eos_token_id, self._rows)
        ids = [stop, self.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
        return frozenset(token for token in ids if isinstance(token, int))

    @property
    def _rows(self) -> int:
        rows: int = self.model.get_input_embeddings().weight.shape[0]
        return rows

    def _encoded(self, prompts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the token ids of each prompt.

        Raises:
            ConfigError: a prompt contains a lone surrogate, has no tokens, or leaves no room in the model's context.
        """
        for index, text in enumerate(prompts):
            if half := lone_surrogate(text):
                raise ConfigError(
                    f"prompt {index} contains {half}, which is half of a surrogate pair. Decode its source as UTF-8."
                )
        encoded = [self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"] for text in prompts]
        for index, tokens in enumerate(encoded):
            if not tokens:
                raise ConfigError(f"prompt {index} is {prompts[index]!r:.60}, which has no tokens. Leave it out.")
            if self._context_tokens is not None and len(tokens) >= self._context_tokens:
                raise ConfigError(
                    f"prompt {index} has {len(tokens):,} tokens, but the model's context of {self._context_tokens:,} "
                    "tokens (max_position_embeddings) must fit prompt and answer. Shorten its schema."
                )
        return encoded

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer, self._eos_ids)

    def _require_rows(self, encoded: list[list[int]]) -> None:
        """Check that each token has an embedding.

        Otherwise a CPU would fail with an unclear error, and CUDA would become unusable for the process.

        Raises:
            ConfigError: a prompt contains a token without an embedding.
        """
        rows = self._rows
        if unknown := sorted({token for tokens in encoded for token in tokens if token >= rows}):
            text = self.tokenizer.convert_ids_to_tokens(unknown[0])
            raise ConfigError(
                f"a prompt contains the token {text!r} (id {unknown[0]}), but the model's embeddings have only "
                f"{rows:,} rows. Resize them (model.resize_token_embeddings(len(tokenizer))) and save the model, or "
                "remove such tokens from the tokenizer."
            )


def _load(source: LocalModelSource, device: str) -> PreTrainedModel:
    adapter = source.adapter
    recipe = adapter.manifest.provenance.get("quantization") if adapter else None
    model = load_causal_lm(source.directory, device, QuantizationRecipe.of(recipe) if recipe else None)
    if adapter:
        from peft import PeftModel

        with reading_model(adapter.path):
            rows = source.resized_rows
            if rows is not None and rows != len(model.get_input_embeddings().weight):
                model.resize_token_embeddings(rows, mean_resizing=False)  # all new rows come from the adapter
            model = PeftModel.from_pretrained(model, str(adapter.path))
        run_token_rows_directly(model)
    return model.eval()
