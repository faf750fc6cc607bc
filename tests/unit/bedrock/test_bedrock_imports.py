"""Importing the phase loads no heavy packages."""

from __future__ import annotations

import subprocess
import sys


def test_importing_the_phase_loads_neither_boto3_nor_torch() -> None:
    code = (
        "import sys, sqlquarry.bedrock as b; "
        "assert sorted(b.__all__) == b.__all__; "
        "print([m for m in ('boto3', 'botocore', 'torch', 'transformers', 'moto') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
