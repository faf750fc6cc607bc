"""Run the emulator until it is interrupted: ``python -m sqlquarry.emulator --port 5000``.

Use it to test programs that run in other processes or are written in other languages. It prints the endpoint, the role,
the bucket and the access key, then waits. By default the output is a shell script that sets the environment. Anyone who
can read the output has the key.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
from collections.abc import Sequence

from sqlquarry.emulator.local_aws import LocalAWS

# AWS SDKs would use these instead of the access key, or together with it.
_OTHER_CREDENTIALS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK")


def main(arguments: Sequence[str] | None = None) -> None:
    """Start the emulator, print how to reach it, wait for Ctrl-C or SIGTERM, and clean up."""
    parser = argparse.ArgumentParser(
        prog="python -m sqlquarry.emulator", description="Run an emulated AWS on 127.0.0.1."
    )
    parser.add_argument("--port", type=int, default=0, help="port to listen on (0 selects a free port)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON instead of a shell script")
    parser.add_argument("--import-s", type=float, default=0.0, help="seconds that an import job takes")
    parser.add_argument("--cold-start-s", type=float, default=0.0, help="seconds that a cold start takes")
    options = parser.parse_args(arguments)
    # Use sigwait instead of a signal handler. A handler that sets an Event may deadlock, because the wait that it
    # interrupts may hold the Event's lock.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with LocalAWS(port=options.port, import_s=options.import_s, cold_start_s=options.cold_start_s) as aws:
        print(_as_json(aws) if options.json else _as_shell_script(aws), flush=True)
        signal.sigwait(ends)


def _as_json(aws: LocalAWS) -> str:
    where = {"endpoint": aws.endpoint_url, "role": aws.role_arn, "bucket": aws.bucket, "region": aws.region}
    return json.dumps(where | {"environment": aws.environment()})


def _as_shell_script(aws: LocalAWS) -> str:
    """Return lines for a POSIX shell. The first line unsets credentials of the user."""
    names = aws.environment() | {"SQLQUARRY_EMULATOR_ROLE": aws.role_arn, "SQLQUARRY_EMULATOR_BUCKET": aws.bucket}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in names.items()]
    return "\n".join([f"unset {' '.join(_OTHER_CREDENTIALS)}", *lines])


if __name__ == "__main__":
    main()
