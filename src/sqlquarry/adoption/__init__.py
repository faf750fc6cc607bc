"""Adopt models made elsewhere as artifacts of this library."""

from sqlquarry.adoption.models import adopt_model

__all__ = ["adopt_model"]
