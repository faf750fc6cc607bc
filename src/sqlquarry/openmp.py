"""Make OpenMP's threads sleep while they wait. Spinning threads slow a CPU run down many times if the cores are busy.

torch uses libgomp, which reads OMP_WAIT_POLICY once when it is loaded.
Source: https://gcc.gnu.org/onlinedocs/libgomp/OMP_005fWAIT_005fPOLICY.html
"""

from __future__ import annotations

import functools
import os
import sys

from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
WAIT_POLICY = "OMP_WAIT_POLICY"
_CHOICES = (WAIT_POLICY, "GOMP_SPINCOUNT")  # if either is set, the user has decided


def wait_passively() -> None:
    """Set OMP_WAIT_POLICY=passive, unless the user set a policy or torch is already loaded."""
    if "torch" not in sys.modules and not any(name in os.environ for name in _CHOICES):
        os.environ[WAIT_POLICY] = "passive"


@functools.cache  # once for each process
def warn_of_spinning() -> None:
    """Warn before work on a CPU if torch was loaded too early for `wait_passively` to set the policy."""
    if not any(name in os.environ for name in _CHOICES):
        logger.warning(
            "torch was imported before sqlquarry could set OMP_WAIT_POLICY=passive. If other programs use the cores, "
            "this process can be many times slower. Set the variable before Python starts, or set "
            "os.environ[%r] = 'passive' before the first import of torch.",
            WAIT_POLICY,
        )
