"""Answer from local weights: batched decoding of a merged model, or of an adapter on the base it was trained on."""

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
from sqlquarry.pretrained import load_causal_lm, load_tokenizer, pick_device, reading_model
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
    """A causal language model on this machine; a `TextGenerator`. Not safe for several threads.

    It computes in float32 on a CPU and in bfloat16 on CUDA.

    Args:
        model: a `MergedModel` or an `AdapterCheckpoint`, which answer records with the prompt that they were trained
            with; or the directory or ``s3://`` prefix of any other model, with config, tokenizer and safetensors as
            transformers or Bedrock's dialect has them. What is on S3 is copied to ``~/.cache/sqlquarry`` once. The base
            of an adapter is quantized as in training.
        formatter: how records become prompts, and which token ends an answer, for the directory of a model; None if it
            is asked texts only. One that is not bound yet is bound to the model's tokenizer.
        base_model: where the base of an adapter is now, whose content is compared by SHA-256; None if it is where
            training found it.
        device: "auto" (CUDA if there is a GPU), "cpu" or "cuda".
        batch_size: prompts decoded together.
        max_tokens: longest answer that `generate` asks for, in tokens.
        session: the boto3 session for S3; None uses the default credentials.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        UnsupportedModelError: the directory holds no causal language model in safetensors, model or adapter ask for
            code of their own, a file is malformed, or the base of the adapter is not there or is another one.
        IncompleteArtifactError: the directory of a merged model or adapter holds no prompt.
        DeviceError: CUDA was asked for, but there is no GPU.
        ConfigError: an unknown device, an option out of range, or a formatter that does not fit the tokenizer.
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
        self.tokenizer: PreTrainedTokenizerFast = load_tokenizer(source.directory)
        self.formatter = source.formatter.bind(self.tokenizer) if source.formatter else None
        self.model = _load(source, self.device)
        self._adapter_digest = source.adapter.manifest.digest if source.adapter else ""
        self._noted_control_tokens = False
        self._reader = PromptReader(self.model, self.device)
        self._eos_ids = self._ending_ids()
        self._context_tokens = position_limit(self.model.config.get_text_config().to_dict())

    def __repr__(self) -> str:
        return f"LocalModel({str(self.directory)!r})"

    @property
    def fingerprint(self) -> str:
        """Return a text that changes with weights, adapter, prompt and limits; it decides which answers are reused."""
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
            ConfigError: records were given, but there is no formatter to render them; or as `complete`.
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

        Prompts are decoded in batches of `batch_size`; what several prompts of a batch begin with in common
        (instructions, schema) is computed once.

        Args:
            prompts: texts, special tokens included as text.
            options: how to write the completions, and when they end.
            advance: called after each batch with the number of its prompts.

        Raises:
            ConfigError: prompts that are not a list of texts, a prompt that has no tokens or leaves no room in the
                model's context, token ids that the model does not have, or a constraint that does not fit its tokens.
        """
        import torch

        check_inputs(prompts, method="complete", records=False)
        options.check_token_ids(self._rows)
        encoded = self._encoded(prompts, add_special_tokens=options.add_special_tokens)
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
                "open the model with its own: LocalModel(MergedModel.load(…))" if has_prompt else "give text prompts"
            )
            raise ConfigError(f"LocalModel needs formatter= to answer records; pass one, or {other}")
        return self.formatter.prompt(record)

    def _ending_ids(self) -> frozenset[int]:
        """Return the tokens that end an answer."""
        bound = self.formatter.tokens if self.formatter else None
        stop = stop_token_id(self.tokenizer, bound.stop) if bound else None  # as the export finds it
        eos = self.model.generation_config.eos_token_id
        ids = [stop, self.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
        return frozenset(token for token in ids if isinstance(token, int))

    @property
    def _rows(self) -> int:
        rows: int = self.model.get_input_embeddings().weight.shape[0]
        return rows

    def _encoded(self, prompts: Sequence[str], *, add_special_tokens: bool) -> list[list[int]]:
        """Return the tokens of each prompt.

        Raises:
            ConfigError: a prompt holds half a character, has no tokens, or leaves no room in the model's context.
        """
        for place, text in enumerate(prompts):
            if half := lone_surrogate(text):
                raise ConfigError(f"prompt {place} holds {half}, which is half a character. Read its text as UTF-8.")
        encoded = [self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"] for text in prompts]
        for place, tokens in enumerate(encoded):
            if not tokens:
                raise ConfigError(f"prompt {place} is {prompts[place]!r:.60}, which has no tokens to continue")
            if self._context_tokens is not None and len(tokens) >= self._context_tokens:
                raise ConfigError(
                    f"prompt {place} has {len(tokens):,} tokens, but the model's context holds "
                    f"{self._context_tokens:,} for prompt and answer (max_position_embeddings). Shorten its schema."
                )
        return encoded

    @functools.cached_property
    def _vocabulary(self) -> Vocabulary:
        return Vocabulary(self.tokenizer, self._eos_ids)

    def _require_rows(self, encoded: list[list[int]]) -> None:
        """Refuse tokens without an embedding, at which a CPU fails; after them CUDA cannot be used by the process.

        Raises:
            ConfigError: a prompt holds one.
        """
        rows = self._rows
        if unknown := sorted({token for tokens in encoded for token in tokens if token >= rows}):
            text = self.tokenizer.convert_ids_to_tokens(unknown[0])
            raise ConfigError(
                f"a prompt holds the token {text!r} ({unknown[0]}), but the model's embeddings have {rows:,} rows. "
                "Resize them (model.resize_token_embeddings(len(tokenizer)), and save the model), or take such tokens "
                "out of the tokenizer."
            )


def _load(source: LocalModelSource, device: str) -> PreTrainedModel:
    adapter = source.adapter
    recipe = adapter.manifest.provenance.get("quantization") if adapter else None
    model = load_causal_lm(source.directory, device, QuantizationRecipe.of(recipe) if recipe else None)
    if adapter:
        from peft import PeftModel

        with reading_model(adapter.path):
            model = PeftModel.from_pretrained(model, str(adapter.path))
        run_token_rows_directly(model)
    return model.eval()
