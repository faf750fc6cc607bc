"""A check that the packages of an optional extra are installed. If one is not, the error gives the pip command."""

import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from sqlquarry.errors import MissingExtraError
from sqlquarry.openmp import wait_passively

# An extra counts as installed if all of its packages here can be imported.
EXTRA_PACKAGES = {
    "train": ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors"),
    "trl": ("trl", "datasets", "torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors"),
    "hub": ("datasets",),
    "merge": ("torch", "bitsandbytes", "tokenizers"),
    "aws": ("boto3",),
    "judge": ("sqlglot", "sqlalchemy", "scipy"),
    "duckdb": ("duckdb",),
    "postgres": ("psycopg",),
    "emulator": ("boto3", "moto", "flask", "torch", "transformers", "llguidance"),
    "parquet": ("pyarrow",),
}
TRL_VERSIONS = ((1, 16), (2, 0))  # from, and below. Other versions have other names and other faults


def require(extra: str, feature: str) -> None:
    """Check that every package of `extra` is installed, before `feature` loads torch or starts any work.

    Raises:
        MissingExtraError: a package is missing, or TRL has an unsupported version. The message lists the missing
            packages and gives the pip command.
    """
    if "torch" in EXTRA_PACKAGES[extra]:
        wait_passively()
    missing = [name for name in EXTRA_PACKAGES[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{feature} needs {', '.join(missing)}. Run: pip install 'sqlquarry[{extra}]'",
            name=missing[0],
        )
    if extra == "trl" and not has_trl():
        (low, minor), (high, _) = TRL_VERSIONS
        raise MissingExtraError(
            f"{feature} needs trl>={low}.{minor},<{high}, but the installed one is {_trl_version()}. "
            "Run: pip install 'sqlquarry[trl]'",
            name="trl",
        )


def has_trl() -> bool:
    """Return whether a supported version of TRL is installed. This does not import it."""
    low, high = TRL_VERSIONS
    return low <= tuple(int(part) for part in re.findall(r"\d+", _trl_version())[:2]) < high


def _trl_version() -> str:
    try:
        return version("trl") if find_spec("trl") else ""
    except PackageNotFoundError:  # a folder of that name
        return ""
