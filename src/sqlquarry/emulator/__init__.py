"""AWS on loopback: moto, extended with Bedrock's model import, whose models answer, and training jobs that train.

A request comes in at `moto.server`, passes the checks of the room `requests`, and reaches by `moto.operations` the
service that answers it: `bedrock`, `sagemaker`, `account` or, for everything else, moto itself. `faults` may interfere
at each of these places. `local_aws` starts and ends all of it.
"""

from sqlquarry.emulator.clock import ManualClock
from sqlquarry.emulator.faults import Fault, Faults
from sqlquarry.emulator.local_aws import LocalAWS

__all__ = ["Fault", "Faults", "LocalAWS", "ManualClock"]
