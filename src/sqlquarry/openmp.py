"""Keep OpenMP's threads from spinning while they wait, which makes a CPU run many times slower if its cores are busy.

libgomp, which torch computes with, reads OMP_WAIT_POLICY once, when it is loaded.
Source: https://gcc.gnu.org/onlinedocs/libgomp/OMP_005fWAIT_005fPOLICY.html
"""

from __future__ import annotations

import functools
import os
import sys

from sqlquarry.text import visible_logger

logger = visible_logger(__name__)
WAIT_POLICY = "OMP_WAIT_POLICY"
_CHOICES = (WAIT_POLICY, "GOMP_SPINCOUNT")  # either is the user's decision


def wait_passively() -> None:
    """Let threads sleep while they wait, unless the user decided otherwise or torch is loaded already."""
    if "torch" not in sys.modules and not any(name in os.environ for name in _CHOICES):
        os.environ[WAIT_POLICY] = "passive"


@functools.cache  # once for each process
def warn_of_spinning() -> None:
    """Say how to let threads sleep, if `wait_passively` came too late; for work on a CPU."""
    if not any(name in os.environ for name in _CHOICES):
        logger.warning(
            "torch was imported before sqlquarry could set OMP_WAIT_POLICY=passive. While other programs use the "
            "cores, this process is many times slower without it. Set it before Python starts, or with "
            "os.environ[%r] = 'passive' above the first import of torch.",
            WAIT_POLICY,
        )
