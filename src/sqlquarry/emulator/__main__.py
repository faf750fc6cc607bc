"""Serve the emulator until interrupted: ``python -m sqlquarry.emulator --port 0``."""

from __future__ import annotations

import argparse
import signal
import threading

from sqlquarry.emulator import LocalAWS


def main() -> None:
    """Start, say where everything is, wait for Ctrl-C or SIGTERM, and clean up."""
    parser = argparse.ArgumentParser(prog="python -m sqlquarry.emulator", description="AWS on 127.0.0.1, by moto")
    parser.add_argument("--port", type=int, default=0, help="port to listen on; 0 takes a free one")
    arguments = parser.parse_args()
    ended = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: ended.set())
    with LocalAWS(port=arguments.port) as aws:
        print(f"endpoint  {aws.endpoint_url}\nrole      {aws.role_arn}\nbucket    {aws.bucket}", flush=True)
        ended.wait()


if __name__ == "__main__":
    main()
