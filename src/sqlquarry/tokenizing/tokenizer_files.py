"""Read the files that define how a model's text becomes tokens."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from sqlquarry.files.metadata import JsonObject, parse_object, read_bytes

# Together, these files make a tokenizer. A tokenizer that is saved with transformers has some of them.
TOKENIZER_FILES = (
    "tokenizer*",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template*",
)
# The SentencePiece model of a class. transformers 4.51.3 converts it instead of reading tokenizer.json if
# `add_prefix_space` is given, whatever its value.
SENTENCEPIECE_FILES = {"LlamaTokenizer": "tokenizer.model", "T5Tokenizer": "spiece.model"}
# The classes that Custom Model Import accepts. Each is also accepted with "Fast" at the end of its name ("Use Custom
# model import to import a customized open-source model into Amazon Bedrock", Bedrock user guide).
SERVED_TOKENIZERS = (
    "CodeLlamaTokenizer",
    "GPT2Tokenizer",
    "GPTNeoXTokenizer",
    "LlamaTokenizer",
    "PreTrainedTokenizer",
    "Qwen2Tokenizer",
    "T5Tokenizer",
)


def is_tokenizer_file(name: str) -> bool:
    """Return whether a file belongs to a tokenizer."""
    return any(fnmatch.fnmatch(name, pattern) for pattern in TOKENIZER_FILES)


@dataclass(frozen=True, slots=True)
class TokenizerFiles:
    """The files that define how a model's text becomes tokens.

    Args:
        tokenizer: content of tokenizer.json.
        config: content of tokenizer_config.json.
        model: content of config.json.
        special: content of special_tokens_map.json.
        added: content of added_tokens.json.
        sentencepiece: whether there is a SentencePiece model among the files.
    """

    tokenizer: JsonObject
    config: JsonObject
    model: JsonObject = field(default_factory=dict)
    special: JsonObject = field(default_factory=dict)
    added: JsonObject = field(default_factory=dict)
    sentencepiece: bool = False

    @classmethod
    def read(cls, content: Callable[[str], bytes | None], names: Iterable[str]) -> TokenizerFiles:
        """Read the files of a model.

        Args:
            content: returns the content of a file, or None if there is no such file.
            names: the names of all files.

        Raises:
            OSError, ValueError: a file cannot be read.
        """

        def parsed(name: str) -> JsonObject:
            raw = content(name)
            return {} if raw is None else parse_object(raw, name)

        return cls(
            tokenizer=parsed("tokenizer.json"),
            config=parsed("tokenizer_config.json"),
            model=parsed("config.json"),
            special=parsed("special_tokens_map.json"),
            added=parsed("added_tokens.json"),
            sentencepiece=not {*SENTENCEPIECE_FILES.values()}.isdisjoint(names),
        )

    @classmethod
    def in_directory(cls, directory: Path, rewritten: Mapping[str, bytes] | None = None) -> TokenizerFiles:
        """Read the files in a directory. Files in `rewritten` replace those in the directory.

        Raises:
            OSError, ValueError: a file cannot be read.
        """

        def content(name: str) -> bytes | None:
            if rewritten and name in rewritten:
                return rewritten[name]
            return read_bytes(directory / name) if (directory / name).is_file() else None

        return cls.read(content, [path.name for path in directory.iterdir()])

    @property
    def class_name(self) -> str:
        """The tokenizer's class without "Fast", or "" if no file names one."""
        name = self.config.get("tokenizer_class") or self.model.get("tokenizer_class") or ""
        return str(name).removesuffix("Fast")
