"""Simulate responses of S3 whose connection is lost."""

from __future__ import annotations

import io

from botocore.exceptions import ResponseStreamingError


class Breaks(io.BytesIO):
    """A response whose connection is lost after some bytes."""

    def __init__(self, content: bytes, at: int) -> None:
        super().__init__(content)
        self._left = at

    def read(self, size: int | None = -1) -> bytes:
        if self._left <= 0:
            raise ResponseStreamingError(error="connection lost")
        block = super().read(min(size or -1, self._left))
        self._left -= len(block)
        return block
