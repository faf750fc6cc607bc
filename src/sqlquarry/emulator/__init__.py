"""AWS on loopback: moto, extended with Bedrock model import and SageMaker training jobs.

Imported models answer with their real weights, and training jobs really train. A request arrives at `moto.server` and
passes the checks in `requests`. Then `moto.operations` passes it to the service that answers it: `bedrock`,
`sagemaker`, `account` or, for everything else, moto itself. `faults` may interfere at each of these steps. `local_aws`
starts and stops the emulator.
"""

from sqlquarry.emulator.clock import ManualClock
from sqlquarry.emulator.faults import Fault, Faults
from sqlquarry.emulator.local_aws import LocalAWS

__all__ = ["Fault", "Faults", "LocalAWS", "ManualClock"]
