"""Build the packages that the job installs: this library as a wheel, and its dependencies, locked by SHA-256.

``locks/`` contains requirements files with the hash of every file, including transitive dependencies, for all Python
versions and platforms of the images. ``make lock`` writes them. torch is part of the image.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import re
import zipfile
from collections.abc import Sequence
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from sqlquarry.credentials import find_credential
from sqlquarry.errors import ConfigError

_NAME = "sqlquarry"
_EXTRAS = ("train", "merge", "aws")  # the extras that the container needs
_HASHES = r"(\s+--hash=sha256:[0-9a-f]{64})+"
_HASHED_LINE = re.compile(
    rf"\s*(#.*|[A-Za-z0-9][\w.-]*(\[[\w,.\s-]+\])?\s*==\s*[\w.+!-]+\s*(;[^#]*?)?{_HASHES}\s*(#.*)?)$"
)
_INSTEAD = {"mlflow": "mlflow-skinny", "tensorboard": "tensorboardX"}  # smaller packages that also suffice for a report
_OF_THE_IMAGE = "torch"  # built for the image's CUDA version. The image also has its requirements
LOCKED, WITHOUT_HASHES = "locked", "without-hashes"
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest date in a zip file, so that equal files make equal wheels


def wheel() -> tuple[str, bytes]:
    """Return the file name and content of a wheel of the installed library, even from an editable checkout.

    Pure Python needs no build. The package's files, the metadata of its installation and a RECORD make a wheel.
    Source: "Binary distribution format", packaging.python.org/specifications/binary-distribution-format.

    Raises:
        ConfigError: the library runs without being installed.
    """
    installed = _library()
    info = f"{_NAME}-{installed.version}.dist-info"
    package = Path(__file__).parents[1]
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


def job_requirements(choice: str | Path, reporters: Sequence[str] = (), extras: Sequence[str] = ()) -> str:
    """Return the content of the requirements file that the job installs, for `SageMakerLauncher.requirements`.

    Args:
        choice: "locked", "without-hashes", or the path of a requirements file.
        reporters: `TrainingConfig.report_to`.
        extras: extras of the library, in addition to those that every job needs: "trl" for that backend.

    Raises:
        ConfigError: a package has no lock or hash, the file cannot be read or contains a credential, or as in
            `requirements`.
    """
    if choice == WITHOUT_HASHES:
        return requirements(reporters, extras)
    if choice == LOCKED:
        return _locked((*extras, *_names(reporters)))
    path = Path(choice)
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"requirements is {str(choice)!r}, but must be {LOCKED!r}, {WITHOUT_HASHES!r} or the path of a "
            f"requirements file, and reading that file failed: {error}"
        ) from error
    if kind := find_credential(text):
        raise ConfigError(
            f"{path} contains {kind} (not shown), and everybody with access to the bucket could read it. Remove it, "
            "and give pip's secrets by their ARNs: secret_arns={'PIP_INDEX_URL': …}"
        )
    lines = text.replace("\\\n", " ").splitlines()
    unpinned = [line.split()[0] for line in lines if line.strip() and not _HASHED_LINE.match(line)]
    if unpinned or not any(line.strip() and not line.lstrip().startswith("#") for line in lines):
        raise ConfigError(
            f"{path} must contain only lines name==version --hash=sha256:…, including transitive dependencies (uv pip "
            f"compile --generate-hashes writes them), but it has {', '.join(unpinned[:5]) or 'none'}. To trust the "
            f"package index instead, pass requirements={WITHOUT_HASHES!r}"
        )
    return text


def _names(report_to: Sequence[str]) -> Sequence[str]:
    return (report_to,) if isinstance(report_to, str) else report_to


def _locked(more: Sequence[str]) -> str:
    """Return the combined locks of the library, TRL and the reporters. A package with its hashes is one entry."""
    folder = Path(__file__).parent / "locks"
    unknown = [name for name in more if not (folder / f"{name}.txt").is_file()]
    if unknown:
        raise ConfigError(
            f"report_to has {', '.join(unknown)}, for which this release has no lock. Give a requirements file with "
            f"hashes, or pass requirements={WITHOUT_HASHES!r}"
        )
    locks = [(folder / f"{name}.txt").read_text(encoding="utf-8") for name in ("job", *more)]
    entries = dict.fromkeys(entry for lock in locks for entry in re.split(r"\n(?=[a-z0-9])", lock.strip()))
    return "".join(f"{entry}\n" for entry in entries)


def requirements(reporters: Sequence[str] = (), extras: Sequence[str] = ()) -> str:
    """Return a requirements file with the library's dependencies in the locally installed versions.

    torch and its dependencies are left out, because they are part of the image.

    Args:
        reporters: `TrainingConfig.report_to`, whose packages are not in an extra.
        extras: extras of the library, in addition to those that every job needs.

    Raises:
        ConfigError: the library or one of these packages is not installed.
    """
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    _library()
    reporters = [_installed(name) for name in _names(reporters)]
    extras = (*_EXTRAS, *extras)
    pinned: dict[str, str] = {}
    missing: set[str] = set()
    waiting = [*((_NAME, extra) for extra in ("", *extras)), *((name, "") for name in reporters)]
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
        wanted = " ".join([f"'{_NAME}[{','.join(extras)}]'", *reporters])
        raise ConfigError(
            f"the job's packages are pinned to the installed versions, but not installed: "
            f"{', '.join(sorted(missing))}. Run: pip install {wanted}"
        )
    del pinned[_NAME]
    return "".join(f"{name}=={version}\n" for name, version in sorted(pinned.items()))


def _installed(reporter: str) -> str:
    """Return the package, or the smaller package that is installed instead."""
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
            f"{_NAME} runs from {Path(__file__).parents[1]} without being installed, so its version and dependencies "
            "are unknown. Run there: pip install -e ."
        ) from error


def _record_digest(content: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
