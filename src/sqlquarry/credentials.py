"""Detection and redaction of credentials in text that others will read: job settings, tags, requirements, manifests.

Only credentials with a recognizable format are found. A password that looks like a word is not found, and neither is a
key of 40 hexadecimal digits, which looks like a SHA-1.

Sources of the formats:
- "Supported secret scanning patterns", docs.github.com/code-security/secret-scanning/introduction
- "IAM identifiers", docs.aws.amazon.com/IAM/latest/UserGuide/reference_identifiers.html
- RFC 3986, section 3.2.1 (user information in a URL), RFC 7519 (JWT) and RFC 7468 (PEM)
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, overload
from urllib.parse import unquote

from sqlquarry.text import visible_logger

logger = visible_logger(__name__)

_WORD = r"(?<![A-Za-z0-9])"  # start of a token, including one after "_" as in a variable name
# Excludes values that only refer to a credential: ***, ${NAME}, $NAME, <name>, {name}, an ARN or a literal.
_PLACEHOLDER = r"(?!\*+(?:[@\s\"'&;,]|$)|\$|<|\{|arn:|(?:none|null|true|false)\b)"
_NAMES = (
    r"password|passwd|passphrase|pwd|(?:client|shared)[_-]?secret|secret|(?:aws[_-]?)?secret[_-]?(?:access[_-]?)?key"
    r"|api[_-]?key|access[_-]?key|account[_-]?key|shared[_-]?access[_-]?(?:key|signature)|private[_-]?key"
    r"|(?:auth|access|api|bearer|refresh|session|security|id)[_-]?token"
)
# Tokens whose prefix identifies the service that issued them.
_PREFIXED = r"""
    [srp]k_(?:live|test|prod)_\w{10,}|sk-(?:proj|ant|svcacct|admin|or|lf)-[\w-]{16,}|sk-(?=\w*\d)[A-Za-z0-9]{20,}
    AIza[\w-]{35}|ya29\.[\w-]{20,}|GOCSPX-[\w-]{20,}|1//0[\w-]{30,}
    wandb_v\d_\w{16,}|nvapi-[\w-]{20,}|gsk_[A-Za-z0-9]{20,}|xai-[A-Za-z0-9]{20,}|r8_[A-Za-z0-9]{30,}
    lsv2_(?:pt|sk)_\w{16,}|dapi[0-9a-f]{32}|npm_[A-Za-z0-9]{30,}|pypi-[\w-]{40,}|dckr_(?:pat|oat)_[\w-]{20,}
    do[opr]_v1_[0-9a-f]{32,}|SG\.[\w-]{16,}\.[\w-]{16,}|sntrys_[\w+/=-]{20,}|lin_api_\w{16,}|ntn_[A-Za-z0-9]{30,}
    hv[sbr]\.[\w-]{20,}|[A-Za-z0-9]{14}\.atlasv1\.[\w-]{20,}|pul-[0-9a-f]{40}|dp\.(?:st|pt|ct|sa)\.[\w.-]{20,}
    shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}|figd_[\w-]{20,}|NRAK-[A-Z0-9]{20,}|ATATT3[\w=-]{20,}|sbp_[0-9a-f]{40}
    pscale_(?:tkn|pw|oauth)_[\w.-]{16,}|napi_[A-Za-z0-9]{30,}|AGE-SECRET-KEY-1[A-Z0-9]{20,}
"""
_KINDS: Mapping[str, re.Pattern[str]] = {
    kind: re.compile(pattern)
    for kind, pattern in {
        "a private key": r"-----BEGIN (?:[A-Z0-9]+ )*PRIVATE KEY(?: BLOCK)?-----(?:[\s\S]*-----END [A-Z0-9 ]+-----)?",
        # A name without a password before "@" is a credential only in http(s), not in ssh://git@host or
        # mysql://root@host.
        "a URL with user information": r"(?i)(?<=://)(?:"
        rf"(?<=http://)[^\s/?#@:]+:?@|(?<=https://)[^\s/?#@:]+:?@|[^\s/?#@:]*:{_PLACEHOLDER}[^\s/?#@]+@)",
        "a signed URL": r"(?i)[?&](?:x-amz-(?:signature|credential|security-token)|x-goog-signature|sig|signature|token"
        rf"|{_NAMES})={_PLACEHOLDER}[^&\s\"']{{6,}}",
        "an AWS access key id": r"(?<![A-Za-z0-9/+])(?:AKIA|ASIA|ABIA)[A-Z0-9]{16}(?![A-Za-z0-9/+])",
        "a Hugging Face token": rf"{_WORD}(?:hf|api_org)_[A-Za-z0-9]{{16,}}",
        "a GitHub token": rf"{_WORD}(?:gh[pousr]_[A-Za-z0-9]{{16,}}|github_pat_[A-Za-z0-9_]{{20,}})",
        "a GitLab token": rf"{_WORD}gl(?:pat|dt|rt|cbt|ptt|ft|soat)-[\w-]{{16,}}",
        "a Slack token": rf"{_WORD}(?:xox[a-z]-[A-Za-z0-9-]{{10,}}|xapp-\d-[A-Za-z0-9-]{{10,}})",
        "an API key": rf"{_WORD}(?:{'|'.join(_PREFIXED.split())})",
        "an Amazon Bedrock key": rf"{_WORD}(?:ABSK[A-Za-z0-9+/]{{30,}}|bedrock-api-key-[A-Za-z0-9+/=]{{20,}})",
        "a webhook": r"hooks\.slack\.com/(?:services|workflows)/[\w/]{16,}"
        r"|discord(?:app)?\.com/api/webhooks/\d+/[\w-]{20,}",
        "a JSON Web Token": rf"{_WORD}eyJ[\w-]{{8,}}\.[\w-]{{8,}}(?:\.[\w-]*){{1,3}}",
        "an authorization header": r"(?i)\b(?:bearer|basic)\s+(?=[\w.~+/=-]*\d)[\w.~+/=-]{16,}",
        "a password or key by its name": rf"(?i)(?<![A-Za-z0-9:])(?:pg)?(?:{_NAMES})[\"']?\s*[=:]\s*[\"']?"
        rf"{_PLACEHOLDER}(?!/)"
        r"[^\s\"',;&}\]]{6,}",
        "a password or key as an option": rf"(?i)(?<![\w-])--?(?:{_NAMES}|token)\s+[\"']?{_PLACEHOLDER}(?![/-])"
        r"[^\s\"']{6,}",
    }.items()
}


def find_credential(text: str) -> str | None:
    """Return the kind of the first credential found in `text`, never its value. None if there is none."""
    return next(
        (
            kind
            for kind, pattern in _KINDS.items()
            for form in (text, unquote(text), unquote(unquote(text)))
            if pattern.search(form)
        ),
        None,
    )


def credentials_in(value: object, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield the path and kind of every credential in a JSON-like value, such as ("Tags[0].Value", "a GitHub token").

    Args:
        value: text, or nested mappings and lists of text.
        path: path of `value` itself, which all paths start with.
    """
    if isinstance(value, str):
        if kind := find_credential(value):
            yield path, kind
    elif isinstance(value, Mapping):
        for name, inner in value.items():
            # A key that is itself a credential must not appear in a path.
            shown = "(a name)" if (kind := find_credential(str(name))) else str(name)
            if kind:
                yield f"{path}.{shown}".lstrip("."), kind
            yield from credentials_in(inner, f"{path}.{shown}".lstrip("."))
    elif isinstance(value, list | tuple):
        for number, inner in enumerate(value):
            yield from credentials_in(inner, f"{path}[{number}]")


@overload
def redacted(value: str) -> str: ...
@overload
def redacted(value: Mapping[str, object]) -> dict[str, Any]: ...
@overload
def redacted(value: object) -> object: ...
def redacted(value: object) -> object:
    """Return a copy of a JSON-like value in which "***" replaces every credential."""
    if isinstance(value, str):
        for pattern in _KINDS.values():
            value = pattern.sub("***", value)
        # A credential that only shows after percent-decoding cannot be cut out, so the text is replaced completely.
        return "***" if find_credential(value) else value
    if isinstance(value, Mapping):
        return {name: redacted(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [redacted(inner) for inner in value]
    return value


def public_provenance(provenance: Mapping[str, object]) -> dict[str, Any]:
    """Return a provenance as plain JSON values with credentials redacted, because a manifest travels with the model."""
    for path, kind in credentials_in(provenance):
        logger.warning("%s contains %s. The manifest stores *** instead.", path, kind)
    return dict(json.loads(json.dumps(redacted(provenance))))
