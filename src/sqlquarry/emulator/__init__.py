"""AWS on loopback: moto, extended with Bedrock's model import, whose models answer with their real weights."""

from sqlquarry.emulator.local import LocalAWS

__all__ = ["LocalAWS"]
