"""The environment variables of a job's process: plain settings and the ARNs of its secrets.

Limits and patterns are those of `Environment` in botocore's model of CreateTrainingJob.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence

from sqlquarry.credentials import find_credential
from sqlquarry.sagemaker.bootstrap import SECRETS

_VARIABLE = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]{0,511}")
_LONGEST_VALUE, _MOST_VARIABLES = 512, 100
_RESERVED = ("SQLQUARRY_", "SM_")  # this library's and SageMaker's
_SECRET_NAME = re.compile(r"(?:^|_)(?:KEY|TOKEN)$|PASSWORD|SECRET", re.IGNORECASE)
_SECRET_ARN = re.compile(r"arn:aws[a-z-]*:secretsmanager:[a-z0-9-]+:\d{12}:secret:[\w/+=.@-]+")


def job_environment(environment: Mapping[str, str], secret_arns: Mapping[str, str]) -> dict[str, str]:
    """Return `Environment` of a request: the settings, and one variable with the ARNs of the secrets."""
    return {**environment, SECRETS: _packed(secret_arns)} if secret_arns else dict(environment)


def environment_problems(environment: Mapping[str, object], secret_arns: Mapping[str, object]) -> list[str]:
    """List the problems of both mappings. Values are not shown, because one may be a secret in the wrong field.

    Args:
        environment: variable -> value.
        secret_arns: variable -> ARN of a secret.
    """
    problems = [*_setting_problems(environment, secret_arns), *_secret_problems(secret_arns)]
    if len(environment) + bool(secret_arns) > _MOST_VARIABLES:
        problems.append(
            f"environment has {len(environment)} variables, but a job can have at most {_MOST_VARIABLES}"
            + (", one of them for secret_arns" if secret_arns else "")
        )
    return problems


def _setting_problems(environment: Mapping[str, object], secret_arns: Mapping[str, object]) -> list[str]:
    found = {
        "environment has {}, which looks like a secret, so give the ARN of a secret in secret_arns instead": [
            name for name in environment if _SECRET_NAME.search(name)
        ],
        "environment has {}, whose value contains a credential (not shown), so store it in Secrets Manager and give "
        "the secret's ARN in secret_arns": [
            name for name, value in environment.items() if isinstance(value, str) and find_credential(value)
        ],
        "environment has {}, which is not a valid variable name": [
            name for name in environment if not _VARIABLE.fullmatch(name)
        ],
        f"environment has {{}}, whose value must be text of at most {_LONGEST_VALUE} characters": [
            name for name, value in environment.items() if not (isinstance(value, str) and len(value) <= _LONGEST_VALUE)
        ],
        "{} is in environment and in secret_arns, but must be in one": [
            name for name in environment if name in secret_arns
        ],
        f"{{}} begins with {' or '.join(_RESERVED)}, but these prefixes are reserved": [
            name for name in (*environment, *secret_arns) if name.startswith(_RESERVED)
        ],
    }
    return [message.format(", ".join(map(repr, names))) for message, names in found.items() if names]


def _secret_problems(secret_arns: Mapping[str, object]) -> list[str]:
    # The names are not shown either, because the caller may have swapped name and value.
    if not all(_VARIABLE.fullmatch(name) and _is_secret_arn(arn) for name, arn in secret_arns.items()):
        rule = "variable names with the ARNs of Secrets Manager secrets"
    elif len(_packed(secret_arns)) > _LONGEST_VALUE:
        rule = f"at most {_LONGEST_VALUE} characters as JSON, the limit for the value of a variable"
    else:
        return []
    return [f"secret_arns is (not shown), but must be {rule}"]


def report_problems(
    report_to: Sequence[str], environment: Mapping[str, str], secret_arns: Mapping[str, str]
) -> list[str]:
    """List the missing settings of the services in `report_to`, because nobody can log in inside the container."""
    lacking = []
    if "wandb" in report_to and "WANDB_API_KEY" not in secret_arns and environment.get("WANDB_MODE") != "offline":
        lacking.append(
            "report_to 'wandb' needs the ARN of the secret with the API key, secret_arns={'WANDB_API_KEY': …}, or "
            "environment={'WANDB_MODE': 'offline'}"
        )
    if "mlflow" in report_to and not {**environment, **secret_arns}.get("MLFLOW_TRACKING_URI"):
        lacking.append(
            "report_to 'mlflow' needs the address of a tracking server, environment={'MLFLOW_TRACKING_URI': …}, "
            "because metrics stored in the container would be lost"
        )
    return lacking


def _packed(secret_arns: Mapping[str, object]) -> str:
    return json.dumps(dict(secret_arns), sort_keys=True, separators=(",", ":"))


def _is_secret_arn(value: object) -> bool:
    return isinstance(value, str) and _SECRET_ARN.fullmatch(value) is not None
