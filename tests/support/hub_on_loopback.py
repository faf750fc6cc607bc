"""Run a Hugging Face hub on loopback with the parts that huggingface_hub needs: model info, file tree, and ranges."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import huggingface_hub

if TYPE_CHECKING:
    import pytest

REVISION = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """A hub with `repositories`, id -> directory. `sent` counts the bytes of each file that were sent."""

    def __init__(self, repositories: dict[str, Path], gated: tuple[str, ...] = ()) -> None:
        self.repositories, self.gated = repositories, gated
        self.sent: dict[str, int] = {}
        self.endpoint = ""

    @contextmanager
    def serving(self) -> Iterator[Hub]:
        """Serve until the block ends."""
        server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"hub": self}))
        self.endpoint = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()

    @contextmanager
    def in_use(self, monkeypatch: pytest.MonkeyPatch, cache: Path) -> Iterator[Hub]:
        """Serve, and let huggingface_hub use this hub and an own `cache`, until the block ends."""
        constants = huggingface_hub.constants
        with self.serving():
            monkeypatch.setattr(constants, "ENDPOINT", self.endpoint)
            template = self.endpoint + "/{repo_id}/resolve/{revision}/{filename}"
            monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
            monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
            monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
            yield self


class _Handler(BaseHTTPRequestHandler):
    hub: Hub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.partition("?")[0].strip("/")
        listing = path.startswith("api/models/")
        owner, name, *rest = path.removeprefix("api/models/").split("/")
        hub_id = f"{owner}/{name}"
        directory = self.hub.repositories.get(hub_id)
        if directory is None:
            self._answer(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif listing and rest[0] == "revision":
            files = [{"rfilename": path.name} for path in sorted(directory.iterdir())]
            self._json({"id": hub_id, "sha": REVISION, "siblings": files})
        elif listing:
            self._json(
                [
                    {"type": "file", "path": path.name, "size": path.stat().st_size, "oid": _etag(path)}
                    for path in sorted(directory.iterdir())
                ]
            )
        elif hub_id in self.hub.gated:
            self._answer(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif not (directory / rest[2]).is_file():
            self._answer(404, b"{}", {"X-Error-Code": "EntryNotFound"})
        else:
            self._file(directory / rest[2])

    def _file(self, path: Path) -> None:
        headers = {"X-Repo-Commit": REVISION, "ETag": f'"{_etag(path)}"', "Accept-Ranges": "bytes"}
        content, status = path.read_bytes(), 200
        if span := self.headers.get("Range"):
            start, _, end = span.removeprefix("bytes=").partition("-")
            headers["Content-Range"] = f"bytes {start}-{end}/{len(content)}"
            content, status = content[int(start) : int(end or len(content)) + 1], 206
        if self.command == "GET":
            self.hub.sent[path.name] = self.hub.sent.get(path.name, 0) + len(content)
        self._answer(status, content, headers)

    def _json(self, content: Any) -> None:
        self._answer(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

    def _answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in {**headers, "Content-Length": str(len(body))}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


def _etag(path: Path) -> str:
    return hashlib.sha1(path.read_bytes(), usedforsecurity=False).hexdigest()
