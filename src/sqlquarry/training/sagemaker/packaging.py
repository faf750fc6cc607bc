"""What the job installs: this very library as a wheel, and every package it needs at the version that is here."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

import sqlquarry
from sqlquarry.errors import ConfigError

_NAME = "sqlquarry"
_EXTRAS = ("train", "merge", "aws")  # what the container does
_INSTEAD = {"mlflow": "mlflow-skinny", "tensorboard": "tensorboardX"}  # bring what a report needs, too
_OF_THE_IMAGE = "torch"  # built for the image's CUDA, and with all that it brings
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # a zip file's first day: the same files make the same wheel


def wheel() -> tuple[str, bytes]:
    """File name and content of a wheel of the library as it is installed, also from an editable checkout.

    Pure Python needs no build: the package's files, the metadata of its installation and a RECORD make a wheel.
    Source: "Binary distribution format", packaging.python.org/specifications/binary-distribution-format.

    Raises:
        ConfigError: the library runs from a directory that pip knows nothing of.
    """
    installed = _library()
    info = f"{_NAME}-{installed.version}.dist-info"
    package = Path(sqlquarry.__file__).parent
    files = {
        f"{_NAME}/{path.relative_to(package).as_posix()}": path.read_bytes()
        for path in sorted(package.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = (installed.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = b"Wheel-Version: 1.0\nGenerator: sqlquarry\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    record = "".join(f"{name},sha256={_record_digest(content)},{len(content)}\n" for name, content in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _LONG_AGO), content, zipfile.ZIP_DEFLATED)
    return f"{_NAME}-{installed.version}-py3-none-any.whl", packed.getvalue()


def requirements(reporters: Sequence[str] = ()) -> str:
    """A requirements file: every package below the library at the version installed here, but torch and what it needs.

    Args:
        reporters: `TrainingConfig.report_to`, whose packages no extra holds.

    Raises:
        ConfigError: the library or one of these packages is not installed here.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    _library()
    reporters = [_there(name) for name in ((reporters,) if isinstance(reporters, str) else reporters)]
    pinned: dict[str, str] = {}
    missing: set[str] = set()
    waiting = [*((_NAME, extra) for extra in ("", *_EXTRAS)), *((name, "") for name in reporters)]
    seen = set(waiting)
    while waiting:
        package, extra = waiting.pop()
        try:
            installed = distribution(package)
        except PackageNotFoundError:
            missing.add(package)
            continue
        pinned[package] = installed.version
        for line in installed.requires or ():
            needed = Requirement(line)
            name = str(canonicalize_name(needed.name))
            if name == _OF_THE_IMAGE or (needed.marker and not needed.marker.evaluate({"extra": extra})):
                continue
            fresh = {(name, wanted) for wanted in ("", *needed.extras)} - seen
            seen |= fresh
            waiting += fresh
    if missing:
        wanted = " ".join([f"'{_NAME}[{','.join(_EXTRAS)}]'", *reporters])
        raise ConfigError(
            f"the job's packages are pinned to what is installed here, but {', '.join(sorted(missing))} is not. "
            f"Run: pip install {wanted}"
        )
    del pinned[_NAME]
    return "".join(f"{name}=={version}\n" for name, version in sorted(pinned.items()))


def _there(reporter: str) -> str:
    """The package, or the one that stands in for it here."""
    for name in (reporter, _INSTEAD.get(reporter, reporter)):
        with contextlib.suppress(PackageNotFoundError):
            distribution(name)
            return name
    return reporter


def _library() -> Distribution:
    try:
        return distribution(_NAME)
    except PackageNotFoundError as error:
        raise ConfigError(
            f"{_NAME} runs from {Path(sqlquarry.__file__).parent} without being installed, so pip knows neither its "
            "version nor what it needs. Run: pip install -e . there"
        ) from error


def _record_digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
