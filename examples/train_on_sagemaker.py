"""Train and merge in a SageMaker training job; without --run it prints the exact request, and needs no AWS account.

    python examples/train_on_sagemaker.py                                     the CreateTrainingJob request, as JSON
    python examples/train_on_sagemaker.py --run --role arn:aws:iam::…:role/… --bucket my-models --region us-east-1

Run again, it attaches to the running job, or returns the finished one.
"""

import argparse
import json

import sqlquarry as sq
from sqlquarry.training.sagemaker import SageMakerLauncher


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", action="store_true", help="launch the job and follow it; it costs money")
    parser.add_argument("--role", default="arn:aws:iam::123456789012:role/sagemaker-training", help="the job's role")
    parser.add_argument("--bucket", default="my-models")
    parser.add_argument("--region", default="us-east-1")
    parser.add_argument(
        "--base", default="meta-llama/Meta-Llama-3-8B-Instruct", help="hub id, directory or s3:// prefix"
    )
    parser.add_argument("--data", help="anything that load_records reads (default: the sample records)")
    parser.add_argument("--instance", default="ml.g5.12xlarge")
    parser.add_argument("--spot", action="store_true", help="spare machines; training goes on after an interruption")
    parser.add_argument("--hf-token-secret", help="ARN of the Secrets Manager secret with the Hugging Face token")
    options = parser.parse_args()

    records = sq.load_records(options.data) if options.data else sq.sample_records("train")
    train, evaluation = records.split(test=0.01)
    trainer = sq.QLoRAFSDPTrainer(options.base, config=sq.TrainingConfig(epochs=2))
    launcher = SageMakerLauncher(
        options.role,
        bucket=options.bucket,
        region=options.region,
        instance_type=options.instance,
        spot=options.spot,
        hf_token_secret_arn=options.hf_token_secret,
    )
    if not options.run:
        print(json.dumps(launcher.dry_run(trainer, train, evaluation), indent=2))
        return
    job = launcher.launch(trainer, train, evaluation)
    cost = job.cost_usd
    print(f"{job.name}: {'price not known' if cost is None else f'${cost:.2f}'}")
    print(f"adapter: {job.adapter_uri}")
    print(f"merged:  {job.merged_uri}")
    print("next:    BedrockImporter(role_arn).import_model(…), with what stands after merged")


if __name__ == "__main__":
    main()
