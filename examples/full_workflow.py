"""Run the published workflow on this machine: data on S3, training job, import job, InvokeModel, judging.

    python examples/full_workflow.py --tiny     a random two-layer model in half a minute, which answers nonsense
    python examples/full_workflow.py            SmolLM2-135M-Instruct, 14 to 21 minutes on a busy CPU

All AWS calls go to an emulator in this process. Without ``LocalAWS`` and ``session=``, the same code uses your own
account: the training job runs on rented machines and Bedrock serves the model.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import sqlquarry as sq
from quickstart import find_base_model
from sqlquarry.emulator import LocalAWS
from sqlquarry.sagemaker import Compute, SageMakerLauncher, StoppingCondition


def main() -> None:
    options = _options()
    started = time.monotonic()

    def step(text: str) -> None:
        print(f"{time.monotonic() - started:5.0f} s  {text}", flush=True)

    step(("half a minute" if options.tiny else "up to 20 minutes") + " on two cores")
    output: Path = options.output
    databases = sq.sample_databases(output / "databases")
    train, test = sq.sample_records("train")[: options.records], sq.sample_records("test")[: options.questions]
    base = make_tiny_model(output / "tiny") if options.tiny else options.base_model or find_base_model()
    trainer = sq.QLoRAFSDPTrainer(
        base,
        config=sq.TrainingConfig(
            num_train_epochs=1, records_per_step=12, max_length=512, learning_rate=3e-3, device="cpu"
        ),
    )
    judge = sq.SQLJudge([sq.ExecutionGrader(databases), sq.ExactGrader()])

    with LocalAWS(max_batch=32) as aws:
        step(f"training job: uploading {len(train)} records and {base} to S3, then training and merging")
        launcher = SageMakerLauncher(
            aws.role_arn,
            bucket=aws.bucket,
            session=aws.session(),
            compute=Compute(instance_type="ml.m5.xlarge"),  # without a GPU, because the job runs on this machine's CPU
            stopping=StoppingCondition(max_runtime_s=7200),
            polling=sq.Polling(interval_s=0.5, timeout_s=7200),
        )
        job = launcher.launch(trainer, train, test)
        step(f"import job: {job.merged_uri}")
        importer = sq.BedrockImporter(aws.role_arn, session=aws.session(), polling=sq.Polling(interval_s=0.2))
        model = importer.import_model(job.merged_uri, "full-workflow")
        model = model.with_options(max_tokens=64, concurrency=32, retry=sq.RetryPolicy(cold_start_interval_s=0.5))
        step(f"InvokeModel: {len(test)} questions for {model.arn}")
        report = judge.evaluate(test, model)

    step("judged")
    print(report.summary())
    sq.write_html({"tuned": report}, output / "report.html", title=f"{Path(base).name}, tuned")
    print(f"report    {(output / 'report.html').resolve()}")


def make_tiny_model(directory: Path) -> str:
    """Save a Llama with random weights, and a tokenizer trained on the sample data, in the format of transformers."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|pad|>"]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    texts = (f"{record.schema} {record.question} {record.sql}" for record in sq.sample_records("train")[:500])
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts,
        trainers.BpeTrainer(vocab_size=1024, special_tokens=special, initial_alphabet=alphabet, show_progress=False),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=special[0], eos_token=special[2], pad_token=special[3]
    )
    tokenizer.save_pretrained(directory)
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_attention_heads": 4, "num_hidden_layers": 2}
    config = LlamaConfig(vocab_size=len(tokenizer), dtype="bfloat16", **sizes, **ids)
    LlamaForCausalLM(config).bfloat16().save_pretrained(directory)
    return str(directory)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help="use a tiny random model instead of SmolLM2")
    parser.add_argument(
        "--base-model",
        help="directory, .gguf file or hub id (default: SmolLM2-135M-Instruct, which also works offline)",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/full-workflow"), help="directory for databases and report"
    )
    parser.add_argument("--records", type=int, help="number of training records")
    parser.add_argument("--questions", type=int, help="number of test questions")
    options = parser.parse_args()
    options.records = options.records or (48 if options.tiny else 560)
    options.questions = options.questions or (12 if options.tiny else 64)
    return options


if __name__ == "__main__":
    main()
