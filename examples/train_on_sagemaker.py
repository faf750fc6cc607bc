"""Train and merge in a SageMaker training job. Without --run, print the exact request, which needs no AWS account.

    python examples/train_on_sagemaker.py                                     print CreateTrainingJob as JSON
    python examples/train_on_sagemaker.py --data questions.csv --dialect postgres --test-size 0.1
    python examples/train_on_sagemaker.py --run --role arn:aws:iam::…:role/… --bucket my-models --region us-east-1

Use --secret and --set to give the job secrets and settings, for example to report to Weights & Biases:

    --report-to wandb --secret WANDB_API_KEY=arn:aws:secretsmanager:…:secret:… --set WANDB_PROJECT=text-to-sql

A run that cannot work is refused before anything is sent. Standard error lists suggestions, such as a cheaper machine.
launcher.plan(trainer, train, evaluation) forecasts steps, memory, time and price. If you run the same command again, it
attaches to the running job or returns the finished one.
"""

import argparse
import json

import boto3

import sqlquarry as sq
from sqlquarry.sagemaker import Compute, SageMakerLauncher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="launch the job, which costs money, and wait for it")
    parser.add_argument("--role", default="arn:aws:iam::123456789012:role/sagemaker-training", help="role of the job")
    parser.add_argument("--bucket", default="my-models")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument(
        "--base", default="meta-llama/Meta-Llama-3-8B-Instruct", help="hub id, directory or s3:// prefix"
    )
    parser.add_argument("--data", help="anything that load_records reads (default: the sample records)")
    parser.add_argument("--dialect", help="SQL dialect of rows without one, such as postgres")
    parser.add_argument(
        "--test-size", type=float, default=0.01, help="share of the records to evaluate on instead of training"
    )
    parser.add_argument("--instance", default="ml.g5.12xlarge")
    parser.add_argument("--spot", action="store_true", help="use spot machines and resume after interruptions")
    parser.add_argument("--report-to", action="append", default=[], choices=("tensorboard", "wandb", "mlflow"))
    parser.add_argument(
        "--secret",
        action="append",
        default=[],
        metavar="NAME=ARN",
        help="environment variable with a Secrets Manager secret, such as HF_TOKEN=arn:… for a gated base model",
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="environment variable of the job"
    )
    options = parser.parse_args()

    records = sq.load_records(options.data, dialect=options.dialect) if options.data else sq.sample_records("train")
    train, evaluation = records.split(test_size=options.test_size)
    trainer = sq.QLoRAFSDPTrainer(
        options.base, config=sq.TrainingConfig(num_train_epochs=2, report_to=options.report_to)
    )
    launcher = SageMakerLauncher(
        options.role,
        bucket=options.bucket,
        session=boto3.Session(region_name=options.region),
        compute=Compute(instance_type=options.instance, spot=options.spot),
        secret_arns=dict(pair.split("=", 1) for pair in options.secret),
        environment=dict(pair.split("=", 1) for pair in options.set),
    )
    if not options.run:
        print(json.dumps(launcher.dry_run(trainer, train, evaluation), indent=2))
        return
    job = launcher.launch(trainer, train, evaluation)
    cost = job.cost_usd
    print(f"{job.name}: {'unknown price' if cost is None else f'${cost:.2f}'}")
    print(f"adapter: {job.adapter_uri}")
    print(f"merged:  {job.merged_uri}")
    print(f"next:    BedrockImporter(role_arn).import_model({job.merged_uri!r}, 'text-to-sql')")


if __name__ == "__main__":
    main()
