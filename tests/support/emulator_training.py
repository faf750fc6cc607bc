"""Training jobs of tests, with scripts as entry points."""

from __future__ import annotations

import textwrap
import time

from sqlquarry.emulator.sagemaker.job_record import ENDED

LOG_GROUP = "/aws/sagemaker/TrainingJobs"
# The first lines of every script.
PRELUDE = """
import json, os, pathlib, signal, subprocess, sys, time
ROOT = pathlib.Path(os.environ["SQLQUARRY_ML_ROOT"])
MODEL, CHECKPOINTS, FAILURE = ROOT / "model", ROOT / "checkpoints", ROOT / "output/failure"
"""


class Jobs:
    """Common calls to one emulator."""

    def __init__(self, aws):
        self.aws = aws
        session = aws.session()
        self.s3, self.logs, self.sagemaker = (session.client(name) for name in ("s3", "logs", "sagemaker"))

    def put(self, key, text):
        self.s3.put_object(Bucket=self.aws.bucket, Key=key, Body=text.encode())

    def channel(self, name, prefix=None, **source):
        uri = f"s3://{self.aws.bucket}/{prefix or name}"
        return {
            "ChannelName": name,
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": uri} | source},
        }

    def request(self, name, script="", *, channels=(), **options):
        """Upload a script to a channel `code`, and return the parameters of a job that runs it."""
        self.put(f"{name}/code/run.py", PRELUDE + textwrap.dedent(script))
        return {
            "TrainingJobName": name,
            "AlgorithmSpecification": {
                "TrainingImage": "123456789012.dkr.ecr.us-east-1.amazonaws.com/training:1",
                "TrainingInputMode": "File",
                "ContainerEntrypoint": ["python3", "/opt/ml/input/data/code/run.py"],
            },
            "RoleArn": self.aws.role_arn,
            "InputDataConfig": [self.channel("code", f"{name}/code/"), *channels],
            "OutputDataConfig": {"S3OutputPath": f"s3://{self.aws.bucket}/output/", "CompressionType": "NONE"},
            "ResourceConfig": {"InstanceType": "ml.g5.12xlarge", "InstanceCount": 1, "VolumeSizeInGB": 100},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600},
        } | options

    def start(self, name, script="", **options):
        return self.sagemaker.create_training_job(**self.request(name, script, **options))["TrainingJobArn"]

    def spot(self, name):
        """Return the options of a spot job with checkpoints."""
        return {
            "EnableManagedSpotTraining": True,
            "CheckpointConfig": {"S3Uri": f"s3://{self.aws.bucket}/{name}/checkpoints"},
            "StoppingCondition": {"MaxRuntimeInSeconds": 3600, "MaxWaitTimeInSeconds": 7200},
        }

    def describe(self, name):
        return self.sagemaker.describe_training_job(TrainingJobName=name)

    def stages(self, name):
        return [transition["Status"] for transition in self.describe(name)["SecondaryStatusTransitions"]]

    def until(self, met, seconds=30):
        """Wait until a call returns a true value, and return that value."""
        end = time.monotonic() + seconds
        while not (found := met()):
            assert time.monotonic() < end, f"no result within {seconds} s"
            time.sleep(0.02)
        return found

    def finish(self, name):
        self.until(lambda: self.describe(name)["TrainingJobStatus"] in ENDED)
        return self.describe(name)

    def run(self, name, script="", **options):
        """Run a job to its end, and return its description."""
        self.start(name, script, **options)
        return self.finish(name)

    def log(self, name):
        """Return the lines that a job has logged, by stream."""
        return {
            stream["logStreamName"]: [
                event["message"]
                for event in self.logs.get_log_events(
                    logGroupName=LOG_GROUP, logStreamName=stream["logStreamName"], startFromHead=True
                )["events"]
            ]
            for stream in self.logs.describe_log_streams(logGroupName=LOG_GROUP, logStreamNamePrefix=f"{name}/")[
                "logStreams"
            ]
        }

    def lines(self, name):
        return [line for lines in self.log(name).values() for line in lines]

    def objects(self, prefix):
        """Return the text of each object below a prefix, by the rest of its key."""
        found = self.s3.list_objects_v2(Bucket=self.aws.bucket, Prefix=prefix).get("Contents", [])
        return {
            item["Key"].removeprefix(prefix): self.s3.get_object(Bucket=self.aws.bucket, Key=item["Key"])["Body"]
            .read()
            .decode(errors="replace")
            for item in found
        }
