"""AWS on loopback: moto, extended with Bedrock's model import, whose models answer, and training jobs that train."""

from sqlquarry.emulator.faults import Fault, Faults, ManualClock
from sqlquarry.emulator.local import LocalAWS

__all__ = ["Fault", "Faults", "LocalAWS", "ManualClock"]
