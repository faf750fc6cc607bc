"""A check that the packages of an optional extra are installed. If one is not, the error gives the pip command."""

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


def require(extra: str, feature: str) -> None:
    """Check that every package of `extra` is installed, before `feature` loads torch or starts any work.

    Raises:
        MissingExtraError: a package is missing. The message lists the missing packages and gives the pip command.
    """
    if "torch" in EXTRA_PACKAGES[extra]:
        wait_passively()
    missing = [name for name in EXTRA_PACKAGES[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{feature} needs {', '.join(missing)}. Run: pip install 'sqlquarry[{extra}]'",
            name=missing[0],
        )
