"""Adopt adapters and models made elsewhere as artifacts of this library."""

from sqlquarry.adoption.adapters import adopt_adapter
from sqlquarry.adoption.models import adopt_model

__all__ = ["adopt_adapter", "adopt_model"]
