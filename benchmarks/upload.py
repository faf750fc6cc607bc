"""Upload throughput against boto3's plain `upload_file` loop, into a loopback sink that discards what it gets.

    python benchmarks/upload.py                      2 GB in shards of 1 GB
    python benchmarks/upload.py --megabytes 512      the same, smaller

Every run is a process of its own (its VmHWM is its peak memory), in turn, and what is compared is the median of the
ratios of each turn. The sink is another process, in whose place the network would be: the kernel throws the bodies away
before they reach it (MSG_TRUNC), so that client and sink do not share the cores more than they must.
Ours also compares every shard with its SHA-256, which `upload_file` does not; the third row adds that to the loop.
All talk plain http, where botocore signs the payload by default; ours does not (each part carries a checksum instead,
which S3 verifies), as botocore itself does over https.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

_BLOCK = 1 << 20
SMALL = {"sha256": hashlib.sha256(b"{}").hexdigest(), "bytes": 2}
CONTENDERS = ("boto3 upload_file loop", "the same, files verified first", "sqlquarry upload")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
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
        print(json.dumps(run(options.contender, options.directory, options.endpoint)))
    else:
        compare(options)


def compare(options: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory, rows = Path(name), {contender: [] for contender in CONTENDERS}
        for number in range(options.shards):
            with (directory / f"model-{number + 1:05}.safetensors").open("wb") as file:
                for _ in range(options.megabytes // options.shards):
                    file.write(os.urandom(1_000_000))
        with subprocess.Popen([sys.executable, __file__, "--sink"], stdout=subprocess.PIPE, text=True) as sink:
            endpoint = f"http://127.0.0.1:{sink.stdout.readline().strip()}"
            for _ in range(options.repeats):
                for contender in CONTENDERS:  # in turn, so that other load of the machine hits all
                    command = [sys.executable, __file__, "--contender", contender]
                    command += ["--directory", name, "--endpoint", endpoint]
                    rows[contender].append(json.loads(subprocess.check_output(command, text=True)))
            sink.terminate()
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


def run(contender: str, directory: Path, endpoint: str) -> dict[str, float]:
    """Seconds and memory of one upload."""
    send = ours(directory, endpoint) if contender == CONTENDERS[2] else plain(directory, endpoint, contender)
    before, started, worked = peak_mb(), time.perf_counter(), time.process_time()
    send()
    return {
        "seconds": time.perf_counter() - started,
        "cpu_seconds": time.process_time() - worked,
        "peak_mb": peak_mb(),
        "grown_mb": peak_mb() - before,
    }


def plain(directory: Path, endpoint: str, contender: str) -> Callable[[], None]:
    import boto3

    s3 = boto3.client("s3", **credentials(endpoint))
    with tempfile.NamedTemporaryFile() as file:
        s3.upload_file(file.name, "models", "warm")  # loads what botocore loads on first use

    def send() -> None:
        for path in sorted(directory.iterdir()):
            if contender == CONTENDERS[1]:
                sha256(path)
            s3.upload_file(str(path), "models", f"plain/{path.name}")

    return send


def ours(directory: Path, endpoint: str) -> Callable[[], None]:
    import boto3

    from sqlquarry.aws import aws_client, expect_bucket_owners
    from sqlquarry.aws.transfer import CLIENT_OPTIONS
    from sqlquarry.bedrock.export.model_export import ModelExport
    from sqlquarry.bedrock.upload import upload
    from sqlquarry.manifests import Manifest

    settings = credentials(endpoint)
    os.environ["AWS_ENDPOINT_URL"] = settings.pop("endpoint_url")
    session = boto3.Session(**settings)
    expect_bucket_owners({"models": None}, session=session)  # the sink knows no accounts
    s3 = aws_client("s3", session, **CLIENT_OPTIONS)
    files = {path.name: path for path in sorted(directory.iterdir())}
    entries = {name: {"sha256": sha256(path), "bytes": path.stat().st_size} for name, path in files.items()}
    export = ModelExport(files, Manifest("merged-model", entries, {}))
    upload(ModelExport({"config.json": b"{}"}, Manifest("m", {"config.json": SMALL}, {})), "s3://models/warm", s3=s3)
    return lambda: upload(export, "s3://models/ours", s3=s3, show_progress=False)


def credentials(endpoint: str) -> dict[str, str]:
    return {
        "endpoint_url": endpoint,
        "region_name": "us-east-1",
        "aws_access_key_id": "loopback",
        "aws_secret_access_key": "loopback",
    }


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


def peak_mb() -> float:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) / 1000 if found else 0.0


def serve() -> None:
    """The sink: as much of S3 as an upload asks for, on a free port, which it prints."""
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


def respond(method: str, key: str, headers: dict[str, Any], hashes: dict[str, str]) -> bytes:
    body, more = b"", ""
    if "x-amz-meta-sha256" in headers:
        hashes[key] = headers["x-amz-meta-sha256"]
    if method == "GET":
        body = b"<Result><IsTruncated>false</IsTruncated></Result>"
    elif method == "POST":
        body = b"<Result><UploadId>one</UploadId><ETag>x</ETag></Result>"
    elif method == "PUT":
        more = 'ETag: "x"\r\n'
    elif key in hashes:
        more = f"x-amz-meta-sha256: {hashes[key]}\r\n"
    return f"HTTP/1.1 200 OK\r\n{more}Content-Length: {len(body)}\r\n\r\n".encode() + body


if __name__ == "__main__":
    main()
