"""Measures the seconds, requests and bytes of a preflight, for a 16 GB model in sparse files and for any S3 prefix.

    python benchmarks/preflight.py --directory /tmp/preflight-benchmark
    python benchmarks/preflight.py --s3 s3://bucket/prefix/

The sparse files take no space. They contain 8 billion zero weights in four shards, and a tokenizer of 128,000 tokens.
Only checking is measured, because a repair would write 16 GB.
"""

from __future__ import annotations

import json
import math
import struct
from collections import Counter
from pathlib import Path

from common import argument_parser, clock
from sqlquarry.bedrock.preflight import preflight
from sqlquarry.checkpoints.tensor_shapes import expected_tensors

LLAMA_3_8B: dict[str, object] = {
    "architectures": ["LlamaForCausalLM"],
    "eos_token_id": 128001,
    "hidden_size": 4096,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "num_key_value_heads": 8,
    "rope_scaling": None,
    "rope_theta": 500000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
TEMPLATE = "{% for m in messages %}{{ m['content'] + eos_token }}{% endfor %}"


def build(directory: Path, shards: int) -> int:
    """Write the model and return the apparent size of its files in bytes."""
    shapes = expected_tensors("LlamaForCausalLM", LLAMA_3_8B) or {}
    index, total = {}, 0
    directory.mkdir(parents=True, exist_ok=True)
    for number in range(shards):
        header, end, shard = {}, 0, f"model-{number + 1:05}-of-{shards:05}.safetensors"
        for name in list(shapes)[number::shards]:
            size = 2 * math.prod(shapes[name])
            header[name] = {"dtype": "BF16", "shape": shapes[name], "data_offsets": [end, end + size]}
            end, index[name] = end + size, shard
        text = json.dumps(header).encode()
        with (directory / shard).open("wb") as file:
            file.write(struct.pack("<Q", len(text)) + text)
            file.truncate(8 + len(text) + end)
        total += end
    files = {
        "config.json": LLAMA_3_8B,
        "generation_config.json": {"eos_token_id": 128001},
        "model.safetensors.index.json": {"weight_map": index},
        "special_tokens_map.json": {"eos_token": "</s>"},
        "tokenizer.json": {
            "added_tokens": [{"id": 128001, "content": "</s>", "special": True}],
            "model": {"type": "BPE", "vocab": {f"token{i}": i for i in range(128_000)}, "merges": []},
        },
        "tokenizer_config.json": {
            "chat_template": TEMPLATE,
            "eos_token": "</s>",
            "tokenizer_class": "PreTrainedTokenizerFast",
        },
    }
    for name, content in files.items():
        (directory / name).write_text(json.dumps(content))
    return total


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--directory", type=Path, help="where to write the sparse model")
    parser.add_argument("--shards", type=int, default=4)
    parser.add_argument("--s3", help="S3 prefix to check, with a count of requests")
    options = parser.parse_args()
    if options.directory:
        total = build(options.directory, options.shards)
        with clock() as took:
            report = preflight(options.directory)
        print(f"{total / 1e9:.1f} GB in {options.shards} shards: {took.seconds:.2f} s; {report}")
    if options.s3:
        import boto3

        session, requests = boto3.session.Session(), Counter[str]()
        session._session.get_component("event_emitter").register(  # noqa: SLF001 - boto3 offers no other way to count
            "before-send.s3", lambda request, **_: requests.update([request.method])
        )
        with clock() as took:
            report = preflight(options.s3, account=True, session=session)
        print(f"{options.s3}: {took.seconds:.2f} s, S3 requests {dict(requests)}; {report}")


if __name__ == "__main__":
    main()
