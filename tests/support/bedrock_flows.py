"""Import and ask a model with the emulator, simulated time, counted requests and known secrets."""

from __future__ import annotations

import logging
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from sqlquarry.answers import Generation
from sqlquarry.artifacts import MergedModel
from sqlquarry.aws.polling import Polling
from sqlquarry.bedrock import BedrockImporter
from sqlquarry.emulator import LocalAWS, ManualClock
from sqlquarry.emulator.moto import server
from sqlquarry.emulator.requests.signature import AccessKey
from sqlquarry.errors import BedrockError
from sqlquarry.models import ImportedModel, RetryPolicy

# AWS's own examples, except the token, which must be as long as a real one to be detected.
# The emulators' credentials: id, secret and session token.
SECRETS = ("AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLETOKEN")
QUESTIONS = ["SELECT 1", "SELECT 2", "SELECT 3"]


class Echo:
    """Write a model that answers with its prompt."""

    class _Words:
        chat_template = "any"

        def __call__(self, text: str, **_: Any) -> dict[str, Any]:
            return {"input_ids": text.split()}

    tokenizer = _Words()

    def __init__(self, _: Path) -> None:
        pass

    def complete(self, prompts: list[str], _: Any) -> list[Generation]:
        return [Generation(prompt, "stop", 2, 2) for prompt in prompts]


class Flow:
    """An emulator, a merged model, and the requests to S3 so far."""

    def __init__(
        self, aws: LocalAWS, clock: ManualClock, merged: MergedModel, stored: Counter[tuple[str, str]]
    ) -> None:
        self.aws, self.clock, self.merged, self.stored = aws, clock, merged, stored
        self.uri = f"s3://{aws.bucket}/flow/"
        self.session = aws.session()
        self.session._session.set_credentials(*SECRETS)
        self.s3 = self.session.client("s3")
        self.bedrock = self.session.client("bedrock")
        polling = Polling(interval_s=300, timeout_s=3600, sleep=clock.advance, clock=clock)
        self.importer = BedrockImporter(aws.role_arn, session=self.session, polling=polling, show_progress=False)

    def run(self) -> ImportedModel:
        model = self.importer.import_model(self.merged, "flow", s3_uri=self.uri)
        return model.with_options(retry=self.retry(max_attempts=4))

    def retry(self, *, max_attempts: int) -> RetryPolicy:
        return RetryPolicy(sleep=self.clock.advance, clock=self.clock, max_attempts=max_attempts, seed=0)

    def jobs(self) -> list[str]:
        """Return the status of every job."""
        return [job.status for job in self.importer.list_jobs()]


@contextmanager
def flow(merged: MergedModel, **options: Any) -> Iterator[Flow]:
    """Start an emulator to import and ask `merged`, in which each job takes ten simulated minutes."""
    stored: Counter[tuple[str, str]] = Counter()

    def counting(application: Any, *rest: Any) -> Any:
        answering = stock_rules(application, *rest)

        def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
            def started(status: str, *more: Any) -> Any:
                if environ["REQUEST_METHOD"] == "PUT" and status.startswith("200"):
                    part = parse_qs(environ["QUERY_STRING"]).get("partNumber", [""])[0]
                    stored[environ["PATH_INFO"].rpartition("/")[2], part] += 1
                return start_response(status, *more)

            return answering(environ, started)

        return respond

    stock_rules = server.apply_s3_rules
    clock = ManualClock()
    timing = {"clock": clock, "sleep": clock.advance, "import_polls": 0, "import_s": 600, "cold_start_calls": 0}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(server, "apply_s3_rules", counting)
        patched.setattr(AccessKey, "random", lambda: AccessKey(*SECRETS))
        with LocalAWS(load_model=Echo, **timing | options) as aws:
            yield Flow(aws, clock, merged, stored)


def told(error: BaseException) -> str:
    """Return everything that a user can see of an error: texts, reprs and tracebacks of its whole chain."""
    seen, texts = [error], []
    while seen and (current := seen.pop()):
        texts += [str(current), repr(current)]
        seen += [link for link in (current.__cause__, current.__context__) if link is not None]
    return "\n".join([*texts, *traceback.format_exception(error)])


def without_secrets(error: BedrockError, records: list[logging.LogRecord]) -> bool:
    """Return whether neither the error nor any log record contains a secret."""
    logged = [logging.Formatter("%(name)s %(message)s").format(record) for record in records]
    return not any(secret in text for secret in SECRETS for text in [told(error), *logged])
