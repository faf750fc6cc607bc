"""Answers from local weights: batched greedy decoding, a merged model or an adapter on the base it was trained on."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlquarry.artifacts import AdapterCheckpoint, Generation, MergedModel, Record
from sqlquarry.aws.artifacts import fetch_model
from sqlquarry.errors import ConfigError, DeviceError, UnsupportedModelError
from sqlquarry.extras import require
from sqlquarry.foreign_model import refuse_foreign_code
from sqlquarry.locations import S3Location, is_s3, located
from sqlquarry.prompt import PromptFormatter
from sqlquarry.quantization import QuantizationRecipe, load_causal_lm, load_tokenizer, reading_model

if TYPE_CHECKING:
    import torch


class LocalModel:
    """A causal language model on this machine; a `TextGenerator`. Not safe for several threads.

    It computes in float32 on a CPU and in bfloat16 on CUDA.

    Args:
        directory: config, tokenizer and safetensors, as transformers or Bedrock's dialect has them; an ``s3://`` prefix
            is copied to ``~/.cache/sqlquarry`` once.
        formatter: how records become prompts; None where only text prompts are given.
        adapter: a LoRA adapter to put on top; with a 4-bit recipe in its manifest the base is quantised as in training.
        device: "auto" (CUDA where there is one), "cpu" or "cuda".
        batch_size: prompts decoded together.
        max_tokens: longest answer that `generate` asks for, in tokens.
        session: the boto3 session for S3; None takes the default credentials.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        UnsupportedModelError: the directory holds no causal language model in safetensors, or model or adapter ask for
            code of their own, or a file is malformed.
        DeviceError: CUDA was asked for where there is none.
        ConfigError: an unknown device.
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
        self.directory = _local_copy(directory, session)
        self.formatter, self.batch_size, self.max_tokens = formatter, batch_size, max_tokens
        self.device = pick_device(device)
        if not (self.directory / "config.json").is_file():
            raise UnsupportedModelError(f"{self.directory} has no config.json, so it is not a model directory")
        if not any(self.directory.glob("*.safetensors")):
            raise UnsupportedModelError(
                f"{self.directory} has no *.safetensors, and pickled weights are not read. Save the model again."
            )
        for given in (self.directory, *([adapter.path] if adapter else ())):
            refuse_foreign_code(given)
        self.tokenizer: Any = load_tokenizer(self.directory)
        self.model = self._load(adapter)
        self._adapter_digest = adapter.manifest.digest if adapter else ""
        eos = self.model.generation_config.eos_token_id
        ids = [self.tokenizer.eos_token_id, *(eos if isinstance(eos, list) else [eos])]
        # transformers renames the argument in 5.40; the old name warns since 5.24.
        names = inspect.signature(self.model.get_base_model().forward if adapter else self.model.forward).parameters
        self._cache_argument = "cache" if "cache" in names else "past_key_values"
        self._eos_ids = {token for token in ids if isinstance(token, int)}

    @classmethod
    def from_merged(cls, merged: MergedModel, **options: Any) -> LocalModel:
        """The merged weights, served with the prompt they were trained with; `options` as in the constructor.

        Raises:
            IncompleteArtifactError: the directory holds no prompt.
            SQLQuarryError: as the constructor.
        """
        directory = _local_copy(merged.location, options.get("session"))
        return cls(directory, formatter=PromptFormatter.load(directory), **options)

    @classmethod
    def from_adapter(cls, adapter: AdapterCheckpoint, **options: Any) -> LocalModel:
        """The adapter on the base weights of its training, 4-bit ones included; `options` as in the constructor.

        Raises:
            IncompleteArtifactError: the directory holds no prompt.
            SQLQuarryError: as the constructor.
        """
        base: str | Path = adapter.base_model_path
        if is_s3(adapter.base_model) and not adapter.base_model_path.exists():
            base = adapter.base_model
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
        return model.eval()

    def generate(self, inputs: Sequence[Record] | Sequence[str], /) -> list[Generation]:
        """Answer each input greedily, in order.

        Raises:
            ConfigError: a record was given, but there is no formatter to render it.
        """
        prompts = []
        for item in inputs:
            if isinstance(item, Record):
                if self.formatter is None:
                    raise ConfigError("LocalModel needs formatter= to answer records; pass one, or give text prompts")
                item = self.formatter.prompt(item, self.tokenizer)  # noqa: PLW2901 - the record becomes its prompt
            prompts.append(item)
        return self.complete(prompts, max_tokens=self.max_tokens)

    def complete(
        self,
        prompts: Sequence[str],
        *,
        max_tokens: int = 256,
        add_special_tokens: bool = True,
        stop: Sequence[str] = (),
        temperature: float = 0.0,
        seed: int | None = None,
        logprobs: bool = False,
    ) -> list[Generation]:
        """Complete text prompts, in order.

        Prompts are decoded in batches of `batch_size`; what several prompts of a batch begin with in common
        (instructions, schema) is computed once.

        Args:
            prompts: texts, special tokens included as text.
            max_tokens: longest completion, in tokens.
            add_special_tokens: let the tokenizer put BOS in front where it does; off for rendered chat templates.
            stop: texts that end a completion; they are cut off.
            temperature: 0 decodes greedily, else samples.
            seed: makes sampling reproducible.
            logprobs: tell the log-probability of each token written, the one that ends the answer included; the
                model's own, whatever the temperature.
        """
        import torch

        encoded = [self.tokenizer(text, add_special_tokens=add_special_tokens)["input_ids"] for text in prompts]
        random = torch.Generator(device=self.device)
        random.manual_seed(seed if seed is not None else torch.seed() % 2**63)
        answers: list[Generation] = []
        with torch.inference_mode():
            for start in range(0, len(encoded), self.batch_size):
                batch = encoded[start : start + self.batch_size]
                answers += self._decode(batch, max_tokens, stop, temperature, random, logprobs=logprobs)
        return answers

    def _decode(
        self,
        prompts: list[list[int]],
        max_tokens: int,
        stop: Sequence[str],
        temperature: float,
        random: torch.Generator,
        *,
        logprobs: bool,
    ) -> list[Generation]:
        import torch

        started = time.monotonic()
        written: list[list[int]] = [[] for _ in prompts]
        scores: list[list[float]] = [[] for _ in prompts]
        answers: list[Generation | None] = [None] * len(prompts)
        logits, cache, mask, active = self._prefill(prompts)  # `active`: rows of the cache -> prompts
        while True:
            tokens = _pick(logits, temperature, random)
            if logprobs:
                picked = logits.log_softmax(dim=-1).gather(1, tokens[:, None])[:, 0].tolist()
                for index, score in zip(active, picked, strict=True):
                    if answers[index] is None:
                        scores[index].append(score)
            for row, token in enumerate(tokens.tolist()):
                index = active[row]
                if answers[index] is None:
                    answers[index] = self._extend(written[index], token, max_tokens, stop)
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
            logits = self._forward(tokens[:, None], mask, positions, cache)
        latency = time.monotonic() - started
        return [
            Generation(
                answer.text, answer.stop_reason, len(prompt), len(tokens), latency, tuple(values) if logprobs else None
            )
            for prompt, tokens, answer, values in zip(prompts, written, answers, scores, strict=True)
            if answer is not None
        ]

    def _extend(self, written: list[int], token: int, max_tokens: int, stop: Sequence[str]) -> Generation | None:
        """Take one more token; the finished answer, or None while it goes on."""
        written.append(token)
        if token in self._eos_ids:
            return Generation(self._text(written[:-1]))
        if stop:
            text = self._text(written)
            if found := [text.index(word) for word in stop if word in text]:
                return Generation(text[: min(found)])
        return Generation(self._text(written), "length") if len(written) >= max_tokens else None

    def _text(self, tokens: list[int]) -> str:
        text: str = self.tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return text

    def _prefill(self, prompts: list[list[int]]) -> tuple[torch.Tensor, Any, torch.Tensor, list[int]]:
        """Read the prompts, family by family.

        Returns:
            The logits of each next token (batch, vocabulary), the cache, the mask over it, and for each row of these
            the place of its prompt.
        """
        import torch
        from transformers import DynamicCache

        # A GPU reads a thousand tokens in the time of one, so there a forward pass saved is worth more than tokens.
        families = group_by_prefix(prompts) if self.device == "cpu" else [list(range(len(prompts)))]
        parts = [self._prefill_family([prompts[index] for index in family]) for family in families]
        width = max(mask.shape[1] for _, _, mask in parts)
        cache = DynamicCache()
        for number in range(len(parts[0][1].layers)):
            layers = [part.layers[number] for _, part, _ in parts]
            cache.update(
                torch.cat([_pad_left(layer.keys, width, dim=2) for layer in layers]),
                torch.cat([_pad_left(layer.values, width, dim=2) for layer in layers]),
                number,
            )
        mask = torch.cat([_pad_left(mask, width, dim=1) for _, _, mask in parts])
        rows = [index for family in families for index in family]
        return torch.cat([logits for logits, _, _ in parts]), cache, mask, rows

    def _prefill_family(self, prompts: list[list[int]]) -> tuple[torch.Tensor, Any, torch.Tensor]:
        """Read prompts that begin alike: the common part once, then the rests side by side."""
        import torch
        from transformers import DynamicCache

        shared = common_prefix(prompts) if len(prompts) > 1 else 0
        cache = DynamicCache()
        if shared:
            self._forward(torch.tensor([prompts[0][:shared]], device=self.device), None, None, cache)
            cache.batch_repeat_interleave(len(prompts))
        width = max(len(prompt) for prompt in prompts) - shared
        # Padding stands between the shared prefix and a shorter rest, so that all rows end in the same column.
        pads = [width - (len(prompt) - shared) for prompt in prompts]
        rests = torch.tensor([[0] * pad + prompt[shared:] for pad, prompt in zip(pads, prompts, strict=True)])
        mask = torch.tensor([[1] * shared + [0] * pad + [1] * (width - pad) for pad in pads], device=self.device)
        positions = (mask.cumsum(dim=1) - 1).clamp(min=0)[:, shared:]
        return self._forward(rests.to(self.device), mask, positions, cache), cache, mask

    def _forward(
        self, tokens: torch.Tensor, mask: torch.Tensor | None, positions: torch.Tensor | None, cache: Any
    ) -> torch.Tensor:
        output = self.model(
            input_ids=tokens,
            attention_mask=mask,
            position_ids=positions,
            use_cache=True,
            logits_to_keep=1,
            **{self._cache_argument: cache},
        )
        logits: torch.Tensor = output.logits[:, -1].float()
        return logits


def _local_copy(location: str | Path | S3Location, session: Any) -> Path:
    place = located(location)
    return fetch_model(place, UnsupportedModelError, session=session) if isinstance(place, S3Location) else place


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


def common_prefix(sequences: Sequence[Sequence[int]]) -> int:
    """How many leading tokens all sequences share, leaving at least one token to each."""
    longest = min(len(sequence) for sequence in sequences) - 1
    columns: Iterator[tuple[int, ...]] = zip(*sequences, strict=False)
    for index, column in enumerate(columns):
        if index >= longest or len(set(column)) > 1:
            return index
    return longest


def group_by_prefix(sequences: Sequence[Sequence[int]]) -> list[list[int]]:
    """Places of sequences, grouped so that those of a group share at least half of the group's first one."""
    groups: list[list[int]] = []
    for index in sorted(range(len(sequences)), key=lambda index: tuple(sequences[index])):
        if groups:
            first = sequences[groups[-1][0]]
            if 2 * common_prefix([first, sequences[index]]) >= len(first):
                groups[-1].append(index)
                continue
        groups.append([index])
    return groups


def _pad_left(tensor: torch.Tensor, width: int, *, dim: int) -> torch.Tensor:
    """Put zeros in front along `dim` until it is `width` long."""
    import torch

    shape = list(tensor.shape)
    shape[dim] = width - tensor.shape[dim]
    return torch.cat([tensor.new_zeros(shape), tensor], dim=dim)


def _pick(logits: torch.Tensor, temperature: float, random: torch.Generator) -> torch.Tensor:
    """The next token of each row: (batch, vocabulary) -> (batch,)."""
    import torch

    if temperature <= 0:
        return logits.argmax(dim=-1)
    return torch.multinomial((logits / temperature).softmax(dim=-1), 1, generator=random)[:, 0]
