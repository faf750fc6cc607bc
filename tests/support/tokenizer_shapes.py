"""Small tokenizers with the parts and configuration keys of tokenizers on the hub.

`vocabularies.json` contains the vocabulary and merges of a byte-level BPE, and those that transformers 4.51.3 converts
`sentencepiece.model` into. Both were trained once on 2,400 lines like "SELECT COUNT(*) FROM users".
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from sqlquarry.prompt import HUMAN_ASSISTANT, BoundTokens, PromptFormatter

HERE = Path(__file__).parent / "tokenizer_data"
VOCABULARIES = json.loads((HERE / "vocabularies.json").read_text())
RECORDED = HERE / "served_tokens.json"
Files = dict[str, Any]
# A bound prompt. A folder with it counts as a model that this library trained.
FORMATTER = PromptFormatter(tokens=BoundTokens(HUMAN_ASSISTANT, "", "</s>", adds_bos=False, stop="</s>"))

LLAMA_3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
QWEN_WORDS = LLAMA_3_WORDS.replace("{1,3}", "")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
PROMPTS = [
    "How many users are there?",
    " leading space",
    "   several  spaces   inside and behind  ",
    "\n",
    "\n\nTwo lines\n\n  indented\ttab",
    "",
    " ",
    "é ü ß 漢字 😀 \u200b\u00a0x",
    "e\u0301 is not é",
    "SELECT COUNT(*) FROM users WHERE age > 12345",
    "<s>[INST] <<SYS>>\nsystem\n<</SYS>>\n\nList the id of all items. [/INST]",
    "[INST] question [/INST] SELECT 1</s>[INST] next",
    "<|system|>\nYou are<|eot_id|></s>\n<|user|>\nHow many</s>\n<|assistant|>\n",
    "Human: <s> the\n\nAssistant:</s>",
    "a</s>b</s> c</s>  d",
    "<|im_start|>system\n<|im_end|>\n<|im_start|>user\n a <|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>  <|im_end|>x <|im_end|> y",
    "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>",
    '<tool_call>\n{"name": 1}\n</tool_call><think>\n\n</think>',
    "<unk> <pad> <PAD>[PAD]",
    "▁already ▁▁marked",
    "</s>",
    "</s>users",
    "<|endoftext|><|endoftext|> users",
    "ordersitems don't WE'LL",
    "Don\u2019t 2024-01-02 3.14",
]


def token(id_: int, content: str, **flags: bool) -> Files:
    given = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True} | flags
    return {"id": id_, "content": content, **given}


def decoder(*tokens: Files) -> Files:
    return {str(one["id"]): {key: value for key, value in one.items() if key != "id"} for one in tokens}


def template(bos: str, id_: int) -> Files:
    single = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair = [*single, {"Sequence": {"id": "B", "type_id": 1}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": pair,
        "special_tokens": {bos: {"id": bos, "ids": [id_], "tokens": [bos]}},
    }


def bpe(kind: str, **options: Any) -> Files:
    vocabulary = VOCABULARIES[kind]
    vocab = {text: id_ for id_, text in enumerate(vocabulary["vocab"])}
    defaults = {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None}
    ends = {"end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False}
    return {**defaults, **ends, **options, "vocab": vocab, "merges": vocabulary["merges"]}


BASICS = [token(0, "<unk>"), token(1, "<s>"), token(2, "</s>")]
SP = len(VOCABULARIES["sentencepiece"]["vocab"])
BL = len(VOCABULARIES["byte_level"]["vocab"])
LEGACY = {
    "type": "Sequence",
    "normalizers": [
        {"type": "Prepend", "prepend": "▁"},
        {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
    ],
}
FIRST = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


def sentencepiece(*more: Files, metaspace: bool = False, kind: str = "llama", **config: Any) -> Files:
    """Write Llama 2, TinyLlama, Vicuna or Mistral. None removes a tokenizer_config.json key; `files_` adds files."""
    files: Files = config.pop("files_", {})
    added = [*BASICS, *more]
    steps = [
        {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
        {"type": "ByteFallback"},
        {"type": "Fuse"},
    ]
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": copy.deepcopy(added),
        "normalizer": None if metaspace else LEGACY,
        "pre_tokenizer": FIRST if metaspace else None,
        "post_processor": template("<s>", 1),
        "decoder": {"type": "Sequence", "decoders": [*steps, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": bpe("sentencepiece", unk_token="<unk>", fuse_unk=True, byte_fallback=True),
    }
    defaults = {
        "added_tokens_decoder": decoder(*added),
        "bos_token": "<s>",
        "eos_token": "</s>",
        "unk_token": "<unk>",
        "tokenizer_class": "LlamaTokenizer",
        "model_max_length": 4096,
        "clean_up_tokenization_spaces": False,
    }
    merged = {key: value for key, value in (defaults | config).items() if value is not None}
    names = {"llama": "LlamaForCausalLM", "mistral": "MistralForCausalLM"}
    return {
        "config.json": {"architectures": [names[kind]], "model_type": kind, "transformers_version": "4.38.0"},
        "tokenizer.json": tokenizer,
        "tokenizer_config.json": merged,
        **files,
    }


def byte_level(*names: str, kind: str, parts: Files, plain: tuple[str, ...] = (), **config: Any) -> Files:
    """Write Llama 3, Qwen or GPT-2, with special tokens after the vocabulary, then tokens that are not special."""
    added = [token(BL + place, name) for place, name in enumerate(names)]
    added += [token(BL + len(added) + place, name, special=False) for place, name in enumerate(plain)]
    architecture = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}[kind]
    basics = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added}
    rest = {"normalizer": None, "post_processor": None, "decoder": bytes_(trim_offsets=True)}
    return {
        "config.json": {"architectures": [architecture], "model_type": kind, "transformers_version": "4.43.0"},
        "tokenizer.json": basics | rest | {"model": bpe("byte_level")} | parts,
        "tokenizer_config.json": {"added_tokens_decoder": decoder(*added), "model_max_length": 4096, **config},
    }


def bytes_(**options: bool) -> Files:
    return {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": True, **options}


def words(pattern: str) -> Files:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return {"type": "Sequence", "pretokenizers": [split, bytes_(use_regex=False)]}


def _shapes() -> dict[str, Files]:
    model = {"files_": {"tokenizer.model": (HERE / "sentencepiece.model").read_bytes()}}
    chatml = [token(SP, "<|im_start|>"), token(SP + 1, "<|im_end|>")]
    stripping = [token(SP, "<|im_start|>", rstrip=True), token(SP + 1, "<|im_end|>", lstrip=True)]
    ordinary = [
        token(SP, "<|im_start|>", normalized=True, special=False),
        token(SP + 1, "<|im_end|>", normalized=True, special=False),
    ]
    instructed = [token(SP, "[INST]"), token(SP + 1, "[/INST]")]
    as_objects = {
        "bos_token": {"__type": "AddedToken", "content": "<s>", "normalized": True},
        "eos_token": {"__type": "AddedToken", "content": "</s>", "normalized": True},
        "added_tokens_decoder": None,
    }
    special_map = {
        "bos_token": {"content": "<s>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
        "eos_token": {"content": "</s>", "lstrip": False, "normalized": True, "rstrip": False, "single_word": False},
        "unk_token": "<unk>",
        "pad_token": "<PAD>",
    }
    ends = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>"}
    heads = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")
    llama_3 = {
        "pre_tokenizer": words(LLAMA_3_WORDS),
        "post_processor": {"type": "Sequence", "processors": [bytes_(), template("<|begin_of_text|>", BL)]},
        "model": bpe("byte_level", ignore_merges=True),
    }
    qwen = {"normalizer": {"type": "NFC"}, "pre_tokenizer": words(QWEN_WORDS), "post_processor": bytes_()}
    named = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "add_prefix_space": False}
    turns = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    tools, thoughts = ("<tool_call>", "</tool_call>"), ("<think>", "</think>")
    digits = {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, bytes_()]}
    smollm = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>", "unk_token": "<|endoftext|>"}
    shapes = {
        "llama 2": sentencepiece(legacy=False, add_bos_token=True, add_eos_token=False, **model),
        "llama 2, older": sentencepiece(legacy=False, **as_objects, **model),
        "tinyllama": sentencepiece(legacy=False, add_bos_token=True, pad_token="</s>", use_default_system_prompt=False),
        "vicuna": sentencepiece(legacy=False, **as_objects, files_={"special_tokens_map.json": special_map}),
        "legacy": sentencepiece(legacy=True, add_bos_token=True, **model),
        "legacy absent": sentencepiece(),
        "legacy null": sentencepiece(tokenizer_class="LlamaTokenizerFast") | {},
        "no bos": sentencepiece(legacy=False, add_bos_token=False),
        "eos": sentencepiece(legacy=False, add_eos_token=True),
        "chatml": sentencepiece(*chatml, legacy=False, additional_special_tokens=["<|im_start|>", "<|im_end|>"]),
        "stripping tokens": sentencepiece(*stripping, legacy=False),
        "ordinary tokens": sentencepiece(*ordinary, legacy=False),
        "flags differ": sentencepiece(*chatml, legacy=False, added_tokens_decoder=decoder(*BASICS, *stripping)),
        "undeclared tokens": sentencepiece(*chatml, legacy=False, added_tokens_decoder=decoder(*BASICS)),
        "added_tokens.json": sentencepiece(
            legacy=False,
            added_tokens_decoder=None,
            files_={
                "added_tokens.json": {"<pad>": SP, "<|im_end|>": SP + 1},
                "special_tokens_map.json": special_map,
            },
        ),
        "code llama": sentencepiece(tokenizer_class="CodeLlamaTokenizer", **model),
        "named by another key": sentencepiece(
            *chatml, legacy=False, image_token="<img>", additional_special_tokens=["<x>"]
        ),
        "splitting special tokens": sentencepiece(legacy=False, split_special_tokens=True),
        "new pad": sentencepiece(legacy=False, pad_token="<PAD>"),
        "mistral 0.1": sentencepiece(
            kind="mistral", legacy=True, add_bos_token=True, additional_special_tokens=[], **model
        ),
        "mistral 0.3": sentencepiece(
            *instructed,
            kind="mistral",
            metaspace=True,
            legacy=False,
            add_bos_token=True,
            add_prefix_space=True,
            **model,
        ),
        "mistral without model": sentencepiece(
            *instructed, kind="mistral", metaspace=True, legacy=False, add_prefix_space=True
        ),
        "metaspace llama": sentencepiece(metaspace=True, legacy=False),
        "ByteLevel as Llama": byte_level(
            *heads,
            kind="llama",
            parts=llama_3,
            tokenizer_class="LlamaTokenizerFast",
            legacy=True,
            add_bos_token=True,
            **ends,
        ),
        "distilled qwen": byte_level(
            *heads,
            kind="qwen2",
            parts=llama_3 | {"pre_tokenizer": words(QWEN_WORDS)},
            tokenizer_class="LlamaTokenizerFast",
            legacy=True,
            add_bos_token=True,
            **ends,
        ),
        "llama 3": byte_level(*heads, kind="llama", parts=llama_3, tokenizer_class="PreTrainedTokenizerFast", **ends),
        "qwen 2.5": byte_level(
            *turns,
            plain=tools,
            kind="qwen2",
            parts=qwen,
            tokenizer_class="Qwen2Tokenizer",
            bos_token=None,
            additional_special_tokens=["<|im_start|>", "<|im_end|>"],
            **named,
        ),
        "qwen 3": byte_level(
            *turns, plain=tools + thoughts, kind="qwen3", parts=qwen, tokenizer_class="Qwen2Tokenizer", **named
        ),
        "smollm": byte_level(
            *turns,
            kind="llama",
            parts={"pre_tokenizer": digits},
            tokenizer_class="GPT2Tokenizer",
            add_prefix_space=False,
            **smollm,
        ),
        "prefix space": byte_level(
            *turns,
            kind="llama",
            parts={"pre_tokenizer": bytes_(add_prefix_space=True)},
            tokenizer_class="PreTrainedTokenizerFast",
            **smollm,
        ),
        "neox": byte_level(
            *turns,
            kind="llama",
            parts={"pre_tokenizer": bytes_(), "normalizer": {"type": "NFC"}},
            tokenizer_class="GPTNeoXTokenizerFast",
            **smollm,
        ),
    }
    shapes["legacy null"]["tokenizer_config.json"]["legacy"] = None
    # Versions 0.21 and 0.23 of `tokenizers` handle the flags of a token that is added again differently.
    for first in (True, False):
        for special in (True, False):
            old = token(SP, "<|im_start|>", normalized=first, special=special)
            new = token(SP, "<|im_start|>", normalized=not first, special=special)
            shapes[f"normalized {first} or not, special {special}"] = sentencepiece(
                old, kind="mistral", legacy=False, added_tokens_decoder=decoder(*BASICS, new)
            )
    stripped = {"__type": "AddedToken", **token(0, "<|im_end|>", lstrip=True)}
    del stripped["id"]
    shapes["listed as objects"] = sentencepiece(
        *chatml, legacy=False, additional_special_tokens=["<|im_start|>", "<x>", stripped]
    )
    shapes["listed in the map"] = sentencepiece(
        legacy=False,
        added_tokens_decoder=None,
        additional_special_tokens=["<x>"],
        files_={"special_tokens_map.json": special_map | {"additional_special_tokens": ["<z>", "<x>"]}},
    )
    only_map = {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]}
    shapes["listed in the map only"] = sentencepiece(
        legacy=False, added_tokens_decoder=None, files_={"special_tokens_map.json": only_map}
    )
    shapes["listed in the map, none in the configuration"] = sentencepiece(
        legacy=False,
        added_tokens_decoder=None,
        additional_special_tokens=[],
        files_={"special_tokens_map.json": only_map},
    )
    shapes["listed in the map, and added"] = sentencepiece(
        legacy=False,
        added_tokens_decoder=None,
        files_={"special_tokens_map.json": only_map, "added_tokens.json": {"<pad>": SP, "<|im_end|>": SP + 1}},
    )
    shapes["objects without a decoder"] = sentencepiece(
        *chatml, legacy=False, added_tokens_decoder=None, additional_special_tokens=["<|im_start|>", stripped]
    )
    shapes["object in the map, text in the list"] = sentencepiece(
        *chatml,
        legacy=False,
        added_tokens_decoder=None,
        additional_special_tokens=["<|im_end|>"],
        files_={"special_tokens_map.json": {"additional_special_tokens": [{"content": "<|im_end|>", "lstrip": True}]}},
    )
    shapes["ordinary but listed"] = sentencepiece(
        *ordinary, legacy=False, additional_special_tokens=["<|im_end|>"], split_special_tokens=True
    )
    shapes["further names"] = sentencepiece(
        legacy=False, additional_special_tokens=["<x>"], extra_special_tokens={"image_token": "<img>"}
    )
    flags = decoder(token(BL, "<|endoftext|>", rstrip=True), token(BL + 1, "<|im_start|>"), token(BL + 2, "<|im_end|>"))
    shapes["qwen, default names"] = byte_level(
        *turns, kind="qwen3", parts=qwen, tokenizer_class="Qwen2Tokenizer", eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
    )  # fmt: skip
    shapes["qwen, default names"]["tokenizer_config.json"]["added_tokens_decoder"] = flags
    for value in (True, False):
        for legacy in (True, False):
            for with_model in ({}, model):
                name = f"add_prefix_space {value}, legacy {legacy}{', model' if with_model else ''}"
                shapes[name] = sentencepiece(add_prefix_space=value, legacy=legacy, **with_model)
    shapes["from_slow"] = sentencepiece(from_slow=True, legacy=False, **model)
    shapes["bos null"] = sentencepiece(legacy=False)
    shapes["bos null"]["tokenizer_config.json"]["bos_token"] = None
    shapes["bos as plain object"] = sentencepiece(legacy=False, bos_token=special_map["bos_token"])
    return shapes


SHAPES = _shapes()


def write(files: Files, directory: Path) -> Path:
    directory.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        raw = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        (directory / name).write_bytes(raw)
    return directory
