"""Adopt adapters and models that other tools have made: check them, and write what a manifest would have said."""

from sqlquarry.adoption.adapters import adopt_adapter

__all__ = ["adopt_adapter"]
