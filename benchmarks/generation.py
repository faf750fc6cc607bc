"""Compares the wall time of many requests by `ImportedModel` with a serial boto3 loop, on a service of fixed latency.

    python benchmarks/generation.py --requests 200 --latency 0.1 --concurrency 20

The service is a small HTTP server on 127.0.0.1 in a separate process, which waits and answers. With `--rate` it also
throttles requests above that number per second.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection

import boto3

from common import argument_parser, clock
from sqlquarry import ImportedModel, RetryPolicy

ARN = "arn:aws:bedrock:us-east-1:123456789012:imported-model/abcdefghijkl"
SQL = " SELECT COUNT(*) FROM singer"
ANSWER = {
    "choices": [{"index": 0, "text": SQL, "finish_reason": "stop"}],
    "usage": {"prompt_tokens": 200, "completion_tokens": 8, "total_tokens": 208},
}


class Rate:
    """A rate limit of `per_second` requests, which is also the largest burst. 0 means no limit."""

    def __init__(self, per_second: float) -> None:
        self.per_second, self.tokens, self.then, self.lock = per_second, per_second, time.monotonic(), threading.Lock()

    def passes(self) -> bool:
        """Return whether a request may pass now, and count it if it may."""
        with self.lock:
            now = time.monotonic()
            self.tokens = min(self.per_second, self.tokens + (now - self.then) * self.per_second)
            self.then = now
            if self.per_second and self.tokens < 1:
                return False
            self.tokens -= 1
            return True


def serve(pipe: Connection, latency_s: float, per_second: float) -> None:
    rate = Rate(per_second)

    class Service(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # sends headers and body in one packet

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            passes = rate.passes()
            if passes:
                time.sleep(latency_s)
            body = json.dumps(ANSWER if passes else {"message": "Too many requests"}).encode()
            self.send_response(200 if passes else 429)
            if not passes:
                self.send_header("x-amzn-ErrorType", "ThrottlingException")
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 128
        daemon_threads = True

    server = Server(("127.0.0.1", 0), Service)
    pipe.send(server.server_port)
    server.serve_forever()


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--requests", type=int, default=200)
    parser.add_argument("--latency", type=float, default=0.1, help="seconds that the service takes for an answer")
    parser.add_argument("--concurrency", type=int, default=20)
    parser.add_argument(
        "--rate", type=float, default=0, help="requests per second that are not throttled (0: no limit)"
    )
    arguments = parser.parse_args()

    receiver, sender = multiprocessing.Pipe()
    service = multiprocessing.get_context("spawn").Process(
        target=serve, args=(sender, arguments.latency, arguments.rate), daemon=True
    )
    service.start()
    endpoint = f"http://127.0.0.1:{receiver.recv()}"
    session = boto3.Session("AKIDEXAMPLE", "not-a-secret", region_name="us-east-1")
    prompts = [f"How many singers are older than {age}?" for age in range(arguments.requests)]

    with clock() as serial:
        client = session.client("bedrock-runtime", endpoint_url=endpoint)
        for prompt in prompts:
            body = json.dumps({"prompt": prompt, "max_tokens": 512, "temperature": 0})
            json.loads(client.invoke_model(modelId=ARN, body=body)["body"].read())
    print(f"boto3, one by one      {serial.seconds:6.2f} s  {len(prompts) / serial.seconds:6.1f} requests/s")

    os.environ["AWS_ENDPOINT_URL_BEDROCK_RUNTIME"] = endpoint
    with clock() as ours:
        retry = RetryPolicy(max_attempts=20)
        model = ImportedModel(ARN, session=session, concurrency=arguments.concurrency, retry=retry)
        answers = model.generate(prompts)
    if [answer.text for answer in answers] != [SQL] * len(prompts):
        raise SystemExit("Some answers are missing or wrong.")
    rate = len(prompts) / ours.seconds
    print(f"ImportedModel, {arguments.concurrency:3d} wide {ours.seconds:6.2f} s  {rate:6.1f} requests/s")
    print(f"ratio                  {serial.seconds / ours.seconds:6.1f} x")
    service.terminate()


if __name__ == "__main__":
    main()
