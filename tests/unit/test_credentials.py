"""Credentials are found by their format anywhere in a text. Text that only resembles a credential is left alone."""

from __future__ import annotations

import string
from urllib.parse import quote

from hypothesis import given, settings
from hypothesis import strategies as st

from sqlquarry.artifacts import AdapterCheckpoint
from sqlquarry.bedrock.import_request import option_problems
from sqlquarry.credentials import credentials_in, find_credential, redacted
from sqlquarry.manifests import write_manifest

ALNUM = string.ascii_letters + string.digits


def text(alphabet: str, low: int, high: int) -> st.SearchStrategy[str]:
    return st.text(alphabet, min_size=low, max_size=high)


def joined(*parts: str | st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.tuples(*(st.just(part) if isinstance(part, str) else part for part in parts)).map("".join)


USER, PASSWORD = text(string.ascii_lowercase, 1, 8), joined(text(ALNUM, 1, 1), text(ALNUM + "-._~!", 5, 20))
BASE64URL = text(ALNUM + "-_", 12, 40)
SECRETS = st.one_of(
    joined(
        st.sampled_from(["https", "postgresql", "mysql+pymysql", "redis"]), "://", USER, ":", PASSWORD, "@db.example"
    ),
    joined("https://", PASSWORD.filter(lambda p: "$" not in p), "@index.example/simple"),
    joined(st.sampled_from(["AKIA", "ASIA"]), text(string.ascii_uppercase + string.digits, 16, 16)),
    joined("hf_", text(ALNUM, 34, 34)),
    joined(st.sampled_from(["ghp_", "gho_", "ghs_", "github_pat_"]), text(ALNUM, 36, 36)),
    joined(st.sampled_from(["sk-", "sk-proj-", "sk-ant-api03-", "sk_live_"]), text(ALNUM, 20, 40), "7a"),
    joined(st.sampled_from(["ABSK", "bedrock-api-key-"]), text(ALNUM, 40, 80)),
    joined(st.sampled_from(["hvs.", "dckr_pat_", "gsk_", "figd_", "dp.st.", "pscale_tkn_"]), text(ALNUM, 30, 40)),
    joined(st.sampled_from(["--password ", "--token ", "--api-key 'x", "PGPASSWORD="]), text(ALNUM, 8, 20), "7a"),
    joined("discord.com/api/webhooks/", text(string.digits, 18, 18), "/", text(ALNUM, 40, 68)),
    joined(st.sampled_from(["xoxb-", "xoxp-"]), text(string.digits, 12, 12), "-", text(ALNUM, 24, 24)),
    joined("eyJ", BASE64URL, ".", BASE64URL, ".", BASE64URL),
    st.sampled_from(["RSA ", "EC ", "OPENSSH ", ""]).map(lambda kind: f"-----BEGIN {kind}PRIVATE KEY-----\nMIIE"),
    joined("Server=db;User Id=sa;Password=", PASSWORD.filter(lambda p: p[0].isalnum()), ";"),
    joined("https://store.example/c?sv=1&sig=", text(ALNUM, 12, 40)),
    joined("https://api.example/x?token=", text(ALNUM, 12, 40)),
    joined("aws_secret_access_key=x", text(ALNUM + "/+", 39, 39)),
    joined("Authorization: Bearer 1", text(ALNUM, 20, 40)),
)
NAME = text(string.ascii_lowercase, 1, 12)
HARMLESS = st.one_of(
    joined("arn:aws:secretsmanager:eu-west-1:123456789012:secret:", NAME, "-", text(ALNUM, 6, 6)),
    joined("arn:aws:iam::123456789012:role/", NAME),
    joined("s3://", text(string.ascii_lowercase + string.digits, 3, 20), "/", text(ALNUM + "/-_.=@", 0, 40)),
    text("0123456789abcdef", 32, 64),  # MD5, SHA-1, SHA-256
    joined("sha256:", text("0123456789abcdef", 64, 64)),
    joined(text(ALNUM, 1, 12), "/", text(ALNUM + "-._", 1, 40)),
    joined("https://", NAME, ".example.com:8080/", text(ALNUM + "/-_.@", 0, 30)),
    joined(NAME, "==", text(string.digits + ".", 1, 8), " --hash=sha256:", text("0123456789abcdef", 64, 64)),
    joined("/opt/ml/input/data/", NAME, "/", NAME, ".jsonl"),
    st.sampled_from(
        [
            "ssh://git@git.example/team/project",
            "git@git.example:team/project.git",
            "mysql://root@localhost/shop",
            "sqlite:////data/my.db",
            "pad_token=<|endoftext|>",
            "max_tokens=4096",
            "token: </s>",
            "https://user:${PIP_PASSWORD}@index.example/simple",
            "https://user:****@index.example/simple",
            "password=<your password>",
            "SELECT password FROM users WHERE token = 'a'",
            "What is the password: of user 5?",
            "hf-internal-testing/tiny-random-LlamaForCausalLM",
            "hf_transfer",
            "sk-learn-contrib-without-any-numbers",
            "sk-2026-11-30-experiment-baseline",
            "sk_model_v2_large_checkpoint",
            "pk_customer_id_2026_11_30",
            "--password-file=/run/secrets/db",
            "--token-count 4096000",
            "https://www.example.com/@author/an-article",
            "763104351884.dkr.ecr.us-east-1.amazonaws.com/huggingface-pytorch-training:2.11-transformers5.13-cu130",
            "-----BEGIN CERTIFICATE-----",
            "AKIA",
            "expandable_segments:True",
        ]
    ),
)


@settings(max_examples=150)
@given(
    secret=SECRETS,
    before=st.sampled_from(["", "URL=", "see ", '{"x": "', "a\n"]),
    after=st.sampled_from(["", " ", '"}']),
)
def test_every_credential_is_found_and_redacted(secret: str, before: str, after: str) -> None:
    text_with_secret = before + secret + after
    assert find_credential(text_with_secret) is not None
    assert find_credential(quote(text_with_secret, safe="")) is not None
    assert find_credential(quote(quote(text_with_secret, safe=""), safe="")) is not None
    assert find_credential(redacted(text_with_secret)) is None


@settings(max_examples=150)
@given(HARMLESS)
def test_text_that_only_resembles_a_credential_is_left_alone(harmless: str) -> None:
    assert find_credential(harmless) is None
    assert redacted(harmless) == harmless


@given(SECRETS)
def test_findings_contain_paths_but_no_values(secret: str) -> None:
    found = list(credentials_in({"Tags": [{"Key": "a", "Value": secret}], "Environment": {secret: "x", "B": ["y"]}}))
    assert [path for path, _ in found] == ["Tags[0].Value", "Environment.(a name)"]
    assert secret not in str(found)


def test_a_manifest_contains_no_credential(tmp_path, caplog) -> None:
    url = "https://user:hunter2hunter2@host/base"
    manifest = write_manifest(tmp_path, AdapterCheckpoint.kind, {"base_model": {"name": url}, "steps": 3})
    assert manifest.provenance == {"base_model": {"name": "https://***host/base"}, "steps": 3}
    assert "hunter2" not in (tmp_path / "manifest.json").read_text()
    assert "base_model.name" in caplog.text
    assert "hunter2" not in caplog.text


def test_nested_values_are_redacted_and_numbers_stay() -> None:
    assert redacted({"config": {"note": ["ghp_" + "a1" * 18, 3, None]}}) == {"config": {"note": ["***", 3, None]}}


def test_a_credential_in_a_tag_is_refused_and_not_shown() -> None:
    (problem,) = option_problems({"team": "data", "note": "ghp_" + "a1" * 18}, None, None)
    assert "tags.note" in problem
    assert "a1a1" not in problem
