"""Answers from local weights: batched greedy decoding, a merged model or an adapter on the base it was trained on."""

from __future__ import annotations

import functools
import hashlib
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.artifacts import AdapterCheckpoint, Generation, MergedModel, Record
from sqlquarry.checkpoints.attention import position_limit
from sqlquarry.checkpoints.foreign_model import refuse_foreign_code
from sqlquarry.checkpoints.model_files import check_model_files
from sqlquarry.errors import ConfigError, DeviceError, UnsupportedModelError
from sqlquarry.extras import require
from sqlquarry.inputs import check_inputs, option_problems, stop_problems
from sqlquarry.models.local.constraints import Constraint, Matcher, Vocabulary
from sqlquarry.models.local.files import base_of, local_copy
from sqlquarry.models.local.prefill import PromptReader
from sqlquarry.models.local.sampling import GREEDY, Ending, Sampling, adjusted, decoding_problems, forbid, pick
from sqlquarry.models.local.token_rows import run_token_rows_directly
from sqlquarry.options import check_options
from sqlquarry.progress.bar import ProgressBar
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe, load_causal_lm, load_tokenizer, reading_model
from sqlquarry.text import lone_surrogate, visible_logger
from sqlquarry.tokenizing.control_tokens import note_in_prompts, stop_token_id

if TYPE_CHECKING:
    import torch

logger = visible_logger(__name__)


@check_options()
class LocalModel:
    """A causal language model on this machine; a `TextGenerator`. Not safe for several threads.

    It computes in float32 on a CPU and in bfloat16 on CUDA.

    Args:
        directory: config, tokenizer and safetensors, as transformers or Bedrock's dialect has them; an ``s3://`` prefix
            is copied to ``~/.cache/sqlquarry`` once.
        formatter: how records become prompts, and which token ends an answer; None if only text prompts are given.
            One that is not bound yet is bound to the model's tokenizer.
        adapter: a LoRA adapter to put on top; with a 4-bit recipe in its manifest the base is quantised as in training.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        batch_size: prompts decoded together.
        max_tokens: longest answer that `generate` asks for, in tokens.
        session: the boto3 session for S3; None takes the default credentials.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        UnsupportedModelError: the directory holds no causal language model in safetensors, or model or adapter ask for
            code of their own, or a file is malformed.
        DeviceError: CUDA was asked for, but there is no GPU.
        ConfigError: an unknown device, an option out of range, or a formatter that does not fit the tokenizer.
    """

    def __init__(
        self,
        directory: str | Path,
        *,
        formatter: PromptFormatter | None = None,
        adapter: AdapterCheckpoint | None = None,
        device: str = "auto",
        batch_size: int = 16,
        max_tokens: int = 256,
        session: Any = None,
    ) -> None:
        require("train", "LocalModel")
        if bad := option_problems({"batch_size": batch_size, "max_tokens": max_tokens}, {}):
            raise ConfigError("LocalModel: " + "; ".join(bad))
        self.directory = local_copy(directory, session)
        self.batch_size, self.max_tokens = batch_size, max_tokens
        self.device = pick_device(device)
        if not (self.directory / "config.json").is_file():
            raise UnsupportedModelError(f"{self.directory} has no config.json, so it is not a model directory")
        if not any(self.directory.glob("*.safetensors")):
            raise UnsupportedModelError(
                f"{self.directory} has no *.safetensors, and pickled weights are not read. Save the model again."
            )
        for given in (self.directory, *([adapter.path] if adapter else ())):
            refuse_foreign_code(given)
        check_model_files(self.directory)
        self.tokenizer: Any = load_tokenizer(self.directory)
        self.formatter = formatter.bind(self.tokenizer) if formatter else None
        bound = self.formatter.tokens if self.formatter else None
        stop = stop_token_id(self.tokenizer, bound.stop) if bound else None  # as the export finds it
        self._noted_control_tokens = False
        self.model = self._load(adapter)
        self._adapter_digest = adapter.manifest.digest if adapter else ""
        eos = self.model.generation_config.eos_token_id
        ids = [stop, self.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
        self._reader = PromptReader(self.model, self.device)
        self._eos_ids = {token for token in ids if isinstance(token, int)}
        self._context_tokens = position_limit(self.model.config.get_text_config().to_dict())

    @classmethod
    def from_merged(cls, merged: MergedModel, **options: Any) -> LocalModel:
        """Serve merged weights with the prompt that they were trained with; `options` are those of the constructor.

        Raises:
            ConfigError: `merged` is something else, such as a path.
            IncompleteArtifactError: the directory holds no prompt.
            SQLQuarryError: as the constructor.
        """
        if not isinstance(merged, MergedModel):
            raise ConfigError(f"merged is {merged!r:.80}, but must be a MergedModel. Open it: MergedModel.load(…).")
        directory = local_copy(merged.location, options.get("session"))
        return cls(directory, formatter=PromptFormatter.load(directory), **options)

    @classmethod
    def from_adapter(
        cls, adapter: AdapterCheckpoint, *, base_model: str | Path | None = None, **options: Any
    ) -> LocalModel:
        """Serve the adapter on the base weights of its training, in 4 bits if it was trained on such.

        Args:
            adapter: what the trainer wrote.
            base_model: where the base is now, whose content is compared by SHA-256; None: where training found it.
            options: as in the constructor.

        Raises:
            ConfigError: `adapter` is something else, such as a path.
            IncompleteArtifactError: the directory holds no prompt.
            UnsupportedModelError: the base is not there, or is another one.
            SQLQuarryError: as the constructor.
        """
        if not isinstance(adapter, AdapterCheckpoint):
            raise ConfigError(
                f"adapter is {adapter!r:.80}, but must be an AdapterCheckpoint. Open it: AdapterCheckpoint.load(…)."
            )
        base = base_of(adapter, base_model, options.get("session"))
        return cls(base, formatter=PromptFormatter.load(adapter.path), adapter=adapter, **options)

    @property
    def fingerprint(self) -> str:
        """A text that changes with weights, adapter, prompt and limits: answers are reused only under the same one."""
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

    def _load(self, adapter: AdapterCheckpoint | None) -> Any:
        if adapter and not (adapter.path / "adapter_model.safetensors").is_file():  # else PEFT unpickles a .bin
            raise UnsupportedModelError(f"{adapter.path} has no adapter_model.safetensors. Train the adapter again.")
        recorded = adapter.manifest.provenance.get("quantization") if adapter else None
        model = load_causal_lm(self.directory, self.device, QuantizationRecipe.of(recorded) if recorded else None)
        if adapter:
            from peft import PeftModel

            with reading_model(adapter.path):
                model = PeftModel.from_pretrained(model, str(adapter.path))
            run_token_rows_directly(model)
        return model.eval()

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
            return self.complete(prompts, max_tokens=self.max_tokens, advance=bar.advance)

    def _rendered(self, record: Record) -> str:
        if self.formatter is None:
            raise ConfigError("LocalModel needs formatter= to answer records; pass one, or give text prompts")
        return self.formatter.prompt(record)

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int = 256,
        add_special_tokens: bool = True,
        stop: Sequence[str] = (),
        sampling: Sampling = GREEDY,
        seed: int | None = None,
        logprobs: bool = False,
        constraint: Constraint | None = None,
        stop_ids: Collection[int] = (),
        ignore_eos: bool = False,
        min_tokens: int = 0,
        skip_special_tokens: bool = True,
        advance: Callable[[int], object] = lambda _: None,
    ) -> list[Generation]:
        """Complete text prompts, in order.

        Prompts are decoded in batches of `batch_size`; what several prompts of a batch begin with in common
        (instructions, schema) is computed once.

        Args:
            prompts: texts, special tokens included as text.
            max_tokens: longest completion, in tokens; where the context ends before it, the completion does too.
            add_special_tokens: let the tokenizer put BOS in front where it does; off for rendered chat templates.
            stop: texts that end a completion; they are cut off.
            sampling: how tokens are chosen: greedily, unless it names a temperature.
            seed: makes sampling reproducible.
            logprobs: tell the log-probability of each token written, the one that ends the answer included; the
                model's own, whatever the sampling and the constraint.
            constraint: the form that each completion must have; one that is cut may have the beginning of it only.
            stop_ids: more tokens that end a completion.
            ignore_eos: write on after the model's own tokens that end an answer.
            min_tokens: shortest completion, in tokens.
            skip_special_tokens: leave special tokens out of the text.
            advance: called after each batch with the number of its prompts.

        Raises:
            ConfigError: an option out of range, prompts that are not a list of texts, a prompt that has no tokens or
                leaves no room in the model's context, or a constraint that does not fit the model's tokens or is given
                with `min_tokens` or `ignore_eos`.
        """
        import torch

        check_inputs(prompts, method="complete", records=False)
        bad = option_problems({"max_tokens": max_tokens}, {}) + stop_problems(stop)
        rows = self.model.get_input_embeddings().weight.shape[0]
        bad += decoding_problems(
            rows, min_tokens=min_tokens, sampling=sampling, seed=seed, stop_ids=stop_ids, constraint=constraint
        )
        if not bad and min_tokens > max_tokens:
            bad.append(f"min_tokens is {min_tokens}, but must be at most max_tokens, which is {max_tokens}")
        if constraint and (min_tokens or ignore_eos):
            bad.append("a constraint says where an answer ends, so min_tokens and ignore_eos cannot be given too")
        if bad:
            raise ConfigError("complete: " + "; ".join(bad))
        encoded = self._encoded(prompts, add_special_tokens=add_special_tokens)
        self._require_rows(encoded)
        random = torch.Generator(device=self.device)
        random.manual_seed(int(seed) if seed is not None else torch.seed() % 2**63)
        ids = frozenset(stop_ids) | (frozenset() if ignore_eos else self._eos_ids)
        ending = Ending(max_tokens, min_tokens, stop, ids, ids | self._eos_ids, skip_special_tokens)
        answers: list[Generation] = []
        with torch.inference_mode():
            for start in range(0, len(encoded), self.batch_size):
                batch = encoded[start : start + self.batch_size]
                matchers = [constraint.begin(self._vocabulary) for _ in batch] if constraint else []
                answers += self._decode(batch, ending, sampling, random, matchers, logprobs=logprobs)
                advance(len(batch))
        return answers

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
        """Refuse tokens that the model has no embedding of: a CPU fails at them, CUDA ends the process's use of it.

        Raises:
            ConfigError: a prompt holds one.
        """
        rows = self.model.get_input_embeddings().weight.shape[0]
        if unknown := sorted({token for tokens in encoded for token in tokens if token >= rows}):
            text = self.tokenizer.convert_ids_to_tokens(unknown[0])
            raise ConfigError(
                f"a prompt holds the token {text!r} ({unknown[0]}), but the model's embeddings have {rows:,} rows. "
                "Resize them (model.resize_token_embeddings(len(tokenizer)), and save the model), or take such tokens "
                "out of the tokenizer."
            )

    def _decode(
        self,
        prompts: list[list[int]],
        ending: Ending,
        sampling: Sampling,
        random: torch.Generator,
        matchers: Sequence[Matcher],
        *,
        logprobs: bool,
    ) -> list[Generation]:
        import torch

        started = time.monotonic()
        written: list[list[int]] = [[] for _ in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        answers: list[Generation | None] = [None] * len(prompts)
        room = [(self._context_tokens or sys.maxsize) - len(prompt) for prompt in prompts]
        endings = [ending._replace(max_tokens=min(ending.max_tokens, left)) for left in room]
        logits, cache, mask, active = self._reader.read(prompts)  # `active`: rows of the cache -> prompts
        while True:
            fitting = adjusted(logits, sampling, [prompts[i] for i in active], [written[i] for i in active])
            for row, index in enumerate(active):
                if answers[index] is None:
                    forbid(fitting, row, len(written[index]), ending, matchers[index] if matchers else None)
            tokens = pick(fitting, sampling, random)
            if logprobs:
                picked = logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0].tolist()
                for index, score in zip(active, picked, strict=True):
                    if answers[index] is None:
                        scores[index].append(score)
            for row, token in enumerate(tokens.tolist()):
                index = active[row]
                if answers[index] is None:
                    if matchers:
                        matchers[index].take(token)
                    answers[index] = self._extend(written[index], token, endings[index])
            unfinished = [row for row, index in enumerate(active) if answers[index] is None]
            if not unfinished:
                break
            if 2 * len(unfinished) <= len(active):  # finished rows cost as much as live ones; dropping them copies
                keep = torch.tensor(unfinished, device=self.device)
                cache.batch_select_indices(keep)
                tokens, mask = tokens[keep], mask[keep]
                active = [active[row] for row in unfinished]
            mask = torch.cat([mask, mask.new_ones(len(active), 1)], dim=1)
            positions = mask.sum(dim=1, keepdim=True) - 1
            logits = self._reader.step(tokens[:, None], mask, positions, cache)
        latency = time.monotonic() - started
        return [
            replace(
                answer,
                prompt_tokens=len(prompt),
                completion_tokens=len(tokens),
                latency_s=latency,
                logprobs=tuple(values) if logprobs else None,
            )
            for prompt, tokens, answer, values in zip(prompts, written, answers, scores, strict=True)
            if answer is not None
        ]

    def _extend(self, written: list[int], token: int, ending: Ending) -> Generation | None:
        """Take one more token; the finished answer, or None until it ends."""
        written.append(token)
        if token in ending.ids:
            return Generation(self._text(written[:-1], ending))
        if ending.stop and len(written) > ending.min_tokens:
            text = self._text(written, ending)
            # A stop text may begin, but not end, in the tokens that must be there.
            least = len(self._text(written[: ending.min_tokens], ending)) if ending.min_tokens else 0
            places = [(text.find(word, max(0, least + 1 - len(word))), word) for word in ending.stop]
            if found := min((place for place in places if place[0] >= 0), default=None):
                return Generation(text[: found[0]], stop_text=found[1])
        return Generation(self._text(written, ending), "length") if len(written) >= ending.max_tokens else None

    def _text(self, tokens: list[int], ending: Ending) -> str:
        text: str = self.tokenizer.decode(
            tokens, skip_special_tokens=ending.skip_special, clean_up_tokenization_spaces=False
        )
        return text


def pick_device(device: str) -> str:
    """Resolve "auto", and refuse "cuda" where there is none.

    Raises:
        DeviceError: CUDA was asked for, but torch sees no CUDA device.
        ConfigError: an unknown word.
    """
    import torch

    if device not in ("auto", "cpu", "cuda"):
        raise ConfigError(f"device is {device!r}; use 'auto', 'cpu' or 'cuda'")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError(
            f"device='cuda', but torch {torch.__version__} sees no CUDA device here. "
            "Use device='cpu', or install a CUDA build of torch on a machine with a GPU."
        )
    return device
