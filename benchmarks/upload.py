"""Compares the upload throughput with that of a boto3 `upload_file` loop, into a loopback sink that discards all data.

    python benchmarks/upload.py                      2 GB in shards of 1 GB
    python benchmarks/upload.py --megabytes 512      the same, smaller

Every run is a separate process, so VmHWM is its peak memory. The contenders take turns, and the result is the median of
the ratios of all turns. The sink is another process in place of the network. The kernel discards the bodies before they
reach it (MSG_TRUNC), so that the sink takes little CPU time from the client.
SQLQuarry also compares every shard with its SHA-256, which `upload_file` does not do. The second contender adds this to
the loop. All contenders use plain HTTP, for which botocore signs the payload by default. SQLQuarry does not sign it,
but sends a checksum with each part, which S3 verifies. botocore does the same over HTTPS.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import boto3

from common import argument_parser, clock, hand_back, peak_rss_kib, run_apart

_BLOCK = 1 << 20
CONTENDERS = ("boto3 upload_file loop", "the same, files verified first", "sqlquarry upload")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--megabytes", type=int, default=2000)
    parser.add_argument("--shards", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--endpoint", help=argparse.SUPPRESS)
    parser.add_argument("--sink", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sink:
        serve()
    elif options.contender:
        hand_back(run(options.contender, options.directory, options.endpoint))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows: dict[str, list[dict[str, float]]] = {contender: [] for contender in CONTENDERS}
        for number in range(options.shards):
            with (directory / f"model-{number + 1:05}.safetensors").open("wb") as file:
                for _ in range(options.megabytes // options.shards):
                    file.write(os.urandom(1_000_000))
        with sink() as endpoint:
            for _ in range(options.repeats):
                for contender in CONTENDERS:  # in turn, so that other load on the machine affects all of them
                    arguments = ["--contender", contender, "--directory", name, "--endpoint", endpoint]
                    rows[contender].append(run_apart([__file__, *arguments]))
    base = [row["seconds"] for row in rows[CONTENDERS[0]]]
    print(f"{options.megabytes} MB in {options.shards} shards, {os.cpu_count()} cores, median of {options.repeats}")
    for contender, runs in rows.items():
        seconds = [row["seconds"] for row in runs]
        ratio = statistics.median(plain / this for plain, this in zip(base, seconds, strict=True))
        print(
            f"{contender:32} {options.megabytes / statistics.median(seconds):6.0f} MB/s  {ratio:4.2f}x  "
            f"CPU {statistics.median(row['cpu_seconds'] for row in runs):5.2f} s  "
            f"memory {max(r['peak_mb'] for r in runs):4.0f} MB, {max(r['grown_mb'] for r in runs):4.0f} MB of it new  "
            f"runs {[round(one, 2) for one in seconds]} s"
        )


@contextmanager
def sink() -> Iterator[str]:
    """Start the sink in a separate process and yield its address."""
    with subprocess.Popen([sys.executable, __file__, "--sink"], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield f"http://127.0.0.1:{process.stdout.readline().strip()}"
        finally:
            process.terminate()


def run(contender: str, directory: Path, endpoint: str) -> dict[str, float]:
    """Measure the seconds and the memory of one upload."""
    session = boto3.Session("loopback", "loopback", region_name="us-east-1")
    os.environ["AWS_ENDPOINT_URL"] = endpoint
    send = ours(directory, session) if contender == CONTENDERS[2] else plain(directory, session, contender)
    before = peak_mb()
    with clock() as took:
        send()
    return {
        "seconds": took.seconds,
        "cpu_seconds": took.cpu_seconds,
        "peak_mb": peak_mb(),
        "grown_mb": peak_mb() - before,
    }


def plain(directory: Path, session: boto3.Session, contender: str) -> Callable[[], None]:
    s3 = session.client("s3")
    with tempfile.NamedTemporaryFile() as file:
        s3.upload_file(file.name, "models", "warm")  # loads everything that botocore loads on first use

    def send() -> None:
        for path in sorted(directory.iterdir()):
            if contender == CONTENDERS[1]:
                sha256(path)
            s3.upload_file(str(path), "models", f"plain/{path.name}")

    return send


def ours(directory: Path, session: boto3.Session) -> Callable[[], object]:
    from sqlquarry.aws import aws_client
    from sqlquarry.aws.transfer import CLIENT_OPTIONS
    from sqlquarry.bedrock.export.model_export import ModelExport
    from sqlquarry.bedrock.upload import upload
    from sqlquarry.manifests import Manifest

    s3 = aws_client("s3", session, **CLIENT_OPTIONS)
    files = {path.name: path for path in sorted(directory.iterdir())}
    entries: dict[str, dict[str, str | int]] = {
        name: {"sha256": sha256(path), "bytes": path.stat().st_size} for name, path in files.items()
    }
    export = ModelExport(files, Manifest("merged-model", entries, {}))
    small: dict[str, dict[str, str | int]] = {"config.json": {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}}
    upload(ModelExport({"config.json": b"{}"}, Manifest("m", small, {})), "s3://models/warm", s3=s3)
    return lambda: upload(export, "s3://models/ours", s3=s3, show_progress=False)


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def peak_mb() -> float:
    return peak_rss_kib() / 1000


def serve() -> None:
    """Serve the part of S3 that an upload needs, on a free port, and print the port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(listener.getsockname()[1], flush=True)
    hashes: dict[str, str] = {}
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=answer, args=(connection, hashes), daemon=True).start()


def answer(connection: socket.socket, hashes: dict[str, str]) -> None:
    block, buffered = bytearray(_BLOCK), b""
    with connection:
        while True:
            while b"\r\n\r\n" not in buffered:
                more = connection.recv(65536)
                if not more:
                    return
                buffered += more
            head, _, buffered = buffered.partition(b"\r\n\r\n")
            first, *lines = head.decode("latin-1").split("\r\n")
            method, target, _ = first.split(" ")
            headers = {key.lower(): value for key, value in (line.split(": ", 1) for line in lines)}
            if headers.get("expect") == "100-continue":
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            left = int(headers.get("content-length", 0)) - len(buffered)
            buffered = buffered[left + len(buffered) :] if left < 0 else b""
            while left > 0:
                received = connection.recv_into(block, min(left, _BLOCK), socket.MSG_TRUNC | socket.MSG_WAITALL)
                if not received:
                    return
                left -= received
            key = target.partition("?")[0]
            connection.sendall(respond(method, key, headers, hashes))


def respond(method: str, key: str, headers: dict[str, str], hashes: dict[str, str]) -> bytes:
    body, more = b"", ""
    if "x-amz-meta-sha256" in headers:
        hashes[key] = headers["x-amz-meta-sha256"]
    if method == "GET":
        body = b"<Result><IsTruncated>false</IsTruncated></Result>"
    elif method == "POST" and key == "/":  # a request to STS, because uploads name the owner of the bucket
        body = b"<GetCallerIdentityResponse><GetCallerIdentityResult><Account>123456789012</Account>"
        body += b"</GetCallerIdentityResult></GetCallerIdentityResponse>"
    elif method == "POST":
        body = b"<Result><UploadId>one</UploadId><ETag>x</ETag></Result>"
    elif method == "PUT":
        more = 'ETag: "x"\r\n'
    elif key in hashes:
        more = f"x-amz-meta-sha256: {hashes[key]}\r\n"
    return f"HTTP/1.1 200 OK\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    main()
