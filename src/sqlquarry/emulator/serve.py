"""Serve the emulator until interrupted: ``python -m sqlquarry.emulator.serve --port 5000``.

For tests of other programs and in other languages: it prints where everything is, then waits.
"""

from __future__ import annotations

import argparse
import json
import signal
from collections.abc import Sequence

from sqlquarry.emulator.local import LocalAWS
from sqlquarry.text import visible


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
        said = {"endpoint": aws.endpoint_url, "role": aws.role_arn, "bucket": aws.bucket, "region": aws.region}
        lines = [json.dumps(said)] if options.json else [f"{name:9} {value}" for name, value in said.items()]
        print(visible("\n".join(lines)), flush=True)
        signal.sigwait(ends)


if __name__ == "__main__":
    main()
