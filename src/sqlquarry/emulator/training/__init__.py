"""Run SageMaker training jobs on this machine."""
