"""Ask a real transformers 4.51.3 for the token ids of every tokenizer shape, before and after our export.

By hand, when a shape, a prompt or the export changes:

    python -m venv /tmp/served
    /tmp/served/bin/pip install transformers==4.51.3 tokenizers sentencepiece protobuf jinja2
    python tests/tools/served_tokens.py /tmp/served/bin/python

It writes tests/support/tokenizer_data/served_tokens.json, with which the unit tests compare.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
import tokenizer_shapes as shapes
from sqlquarry.bedrock.export.metadata_files import export_files
from sqlquarry.prompt import PROMPT_FILE

# Runs under 4.51.3, which has neither torch nor this library.
ASK = """
import json, sys
import transformers
from transformers import AutoTokenizer
transformers.logging.set_verbosity_error()
assert transformers.__version__ == "4.51.3", transformers.__version__
asked = json.load(sys.stdin)
answers = {}
for name, folder in asked["folders"].items():
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder)
        assert tokenizer.is_fast
    except Exception as error:
        answers[name] = {"error": f"{type(error).__name__}: {error}"}
        continue
    answers[name] = {
        key: [tokenizer(text, add_special_tokens=adds)["input_ids"] for text in asked["prompts"]]
        for key, adds in (("with", True), ("without", False))
    }
print()  # the Rust side may have written half a line
json.dump(answers, sys.stdout)
"""


def main(python: str) -> None:
    with tempfile.TemporaryDirectory() as temporary:
        folders = {}
        for name, files in shapes.SHAPES.items():
            place = Path(temporary) / name.replace(" ", "_")
            folders[f"{name}|before"] = str(shapes.write(files, place / "before"))
            folders[f"{name}|after"] = str(exported(files, place))
        question = json.dumps({"folders": folders, "prompts": shapes.PROMPTS})
        done = subprocess.run([python, "-c", ASK], input=question, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    record(json.loads(done.stdout.splitlines()[-1]))


def exported(files: shapes.Files, place: Path) -> Path:
    """What `import_model` uploads of a model that this library trained; its prompt says so."""
    source = shapes.write(files, place / "source")
    shapes.FORMATTER.save(source)
    content = export_files(source)
    rest = {name: (source / name).read_bytes() for name in files if name not in content and name != PROMPT_FILE}
    return shapes.write({**rest, **content}, place / "after")


def record(answers: dict[str, Any]) -> None:
    pool: dict[str, int] = {}
    recorded: dict[str, Any] = {}
    for key, answer in answers.items():
        if "error" in answer:
            recorded[key] = answer["error"].partition("\n")[0]
            continue
        rows = []
        for with_, without in zip(answer["with"], answer["without"], strict=True):
            start = next(at for at in range(len(with_) + 1) if with_[at : at + len(without)] == without)
            front, behind = with_[:start], with_[start + len(without) :]
            rows.append([front, pool.setdefault(json.dumps(without), len(pool)), behind])
        recorded[key] = rows
    lines = ",\n".join(
        f"  {json.dumps(key)}: {json.dumps(rows, separators=(',', ':'))}" for key, rows in recorded.items()
    )
    ids = ",\n".join(f"  {json.dumps(json.loads(row), separators=(',', ':'))}" for row in pool)
    shapes.RECORDED.write_text(f'{{"ids": [\n{ids}\n],\n"answers": {{\n{lines}\n}}}}\n')
    print(shapes.RECORDED, shapes.RECORDED.stat().st_size, "bytes")


if __name__ == "__main__":
    main(*sys.argv[1:])
