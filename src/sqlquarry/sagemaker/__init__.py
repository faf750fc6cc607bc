"""Run a training as a SageMaker training job, using only boto3, one request and the container contract."""

from sqlquarry.sagemaker.job import TrainingJob
from sqlquarry.sagemaker.launcher import SageMakerLauncher
from sqlquarry.sagemaker.settings import Compute, Networking, StoppingCondition

__all__ = ["Compute", "Networking", "SageMakerLauncher", "StoppingCondition", "TrainingJob"]
