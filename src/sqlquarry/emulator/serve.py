"""Serve the emulator until interrupted: ``python -m sqlquarry.emulator.serve --port 5000``.

For tests of other programs and in other languages: it prints where everything is and the key to it, then waits. As text
it is a shell script that sets the environment: whoever reads it has the key.
"""

from __future__ import annotations

import argparse
import json
import shlex
import signal
from collections.abc import Sequence

from sqlquarry.emulator.local import LocalAWS

# AWS SDKs would take these before, or together with, the access key.
_OTHER_CREDENTIALS = ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_BEARER_TOKEN_BEDROCK")


def main(arguments: Sequence[str] | None = None) -> None:
    """Start, say where everything is, wait for Ctrl-C or SIGTERM, and clean up."""
    parser = argparse.ArgumentParser(prog="python -m sqlquarry.emulator.serve", description="AWS on 127.0.0.1, by moto")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    parser.add_argument("--json", action="store_true", help="say where everything is in one line of JSON")
    parser.add_argument("--import-seconds", type=float, default=0.0, help="how long an import job takes")
    parser.add_argument("--cold-seconds", type=float, default=0.0, help="how long a cold model takes to wake")
    options = parser.parse_args(arguments)
    # Waited for, not handled: a handler that sets an Event can find its lock held by the wait that it interrupts.
    ends = {signal.SIGINT, signal.SIGTERM}
    signal.pthread_sigmask(signal.SIG_BLOCK, ends)
    with LocalAWS(port=options.port, import_seconds=options.import_seconds, cold_seconds=options.cold_seconds) as aws:
        print(_as_json(aws) if options.json else _as_shell_script(aws), flush=True)
        signal.sigwait(ends)


def _as_json(aws: LocalAWS) -> str:
    where = {"endpoint": aws.endpoint_url, "role": aws.role_arn, "bucket": aws.bucket, "region": aws.region}
    return json.dumps(where | {"environment": aws.environment()})


def _as_shell_script(aws: LocalAWS) -> str:
    """Lines for a POSIX shell; what the user's own profile would add goes first."""
    names = aws.environment() | {"SQLQUARRY_EMULATOR_ROLE": aws.role_arn, "SQLQUARRY_EMULATOR_BUCKET": aws.bucket}
    lines = [f"export {name}={shlex.quote(value)}" for name, value in names.items()]
    return "\n".join([f"unset {' '.join(_OTHER_CREDENTIALS)}", *lines])


if __name__ == "__main__":
    main()
