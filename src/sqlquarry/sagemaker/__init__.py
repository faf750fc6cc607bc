"""The same training as a SageMaker training job: one request, boto3 and the container contract, nothing else."""

from sqlquarry.sagemaker.job import TrainingJob
from sqlquarry.sagemaker.launcher import SageMakerLauncher
from sqlquarry.sagemaker.settings import Compute, Networking, StoppingCondition

__all__ = ["Compute", "Networking", "SageMakerLauncher", "StoppingCondition", "TrainingJob"]
