"""Records -> AdapterCheckpoint: QLoRA fine-tuning."""

from sqlquarry.training.config import TrainingConfig, learning_rate_for
from sqlquarry.training.trainer import QLoRAFSDPTrainer

__all__ = ["QLoRAFSDPTrainer", "TrainingConfig", "learning_rate_for"]
