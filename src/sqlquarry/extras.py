"""One guard per optional extra: a missing package becomes an error that names the pip command."""

from importlib.util import find_spec

from sqlquarry.errors import MissingExtraError
from sqlquarry.openmp import wait_passively

# The packages whose absence means that the extra is not installed.
_PACKAGES = {
    "train": ("torch", "transformers", "peft", "bitsandbytes", "accelerate", "safetensors"),
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
    """Check that every package of `extra` is installed, before `feature` starts any work and loads torch.

    Raises:
        MissingExtraError: names the missing packages and the pip command.
    """
    if "torch" in _PACKAGES[extra]:
        wait_passively()
    missing = [name for name in _PACKAGES[extra] if find_spec(name) is None]
    if missing:
        raise MissingExtraError(
            f"{feature} needs {', '.join(missing)}, which is not installed. Run: pip install 'sqlquarry[{extra}]'",
            name=missing[0],
        )
