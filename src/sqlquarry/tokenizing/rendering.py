"""Compile chat templates in the same way as transformers, and render untrusted ones in a process that can be killed.

Jinja's sandbox blocks access to files and modules, but it does not limit time and memory. ``{{ 10**10**8 }}`` is
computed during compilation, and two nested loops can run forever. Therefore a template from a downloaded model first
runs in a child process with limits that the kernel enforces.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.meta
import jinja2.sandbox

from sqlquarry.errors import ConfigError, SQLQuarryError

MAX_TEMPLATE_CHARACTERS = 1 << 18  # the longest published templates have about 20,000
MAX_RENDERED_CHARACTERS = 1 << 22
CPU_S = 1.0  # CPU time of the child after its start. Published templates take a few milliseconds.
MEMORY_BYTES = 256 << 20  # address space of the child, which uses 30 MB at its start
_WALL_S = 30.0  # much more than CPU_S, for busy machines. A template cannot sleep.
_MESSAGE_CHARACTERS = 500
_READY = "ready"
_REMEMBERED = 16
_INHERITED = ("PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT")  # an interpreter may need these to start
_PROGRAM = "import sys; sys.path[:] = sys.argv[1:]; from sqlquarry.tokenizing.rendering import serve; serve()"

_unbounded: dict[str, str] = {}  # stopped templates with the reason, so that each of them costs time only once


class Conversation(NamedTuple):
    """Messages to render, and whether to add the generation prompt that begins an answer."""

    messages: Sequence[Mapping[str, Any]]
    generation: bool


class Rendering(NamedTuple):
    """The result of rendering a conversation: the text, or the reason for the failure."""

    text: str
    failure: str = ""

    def require(self) -> str:
        """Return the text.

        Raises:
            ConfigError: the template cannot be parsed or rendered, or it refuses these messages.
        """
        if self.failure:
            raise ConfigError(self.failure)
        return self.text


_SCHEMA = "CREATE TABLE orders (id INTEGER PRIMARY KEY, customer TEXT, total REAL);\n"
_TURNS = ({"role": "user", "content": "How many orders are there?"}, {"role": "assistant", "content": "SELECT 1"})
SAMPLES = (
    Conversation(_TURNS[:1], generation=True),
    Conversation([{"role": "system", "content": _SCHEMA}, *_TURNS], generation=False),
    Conversation([{"role": "system", "content": _SCHEMA * 300}, *_TURNS[:1]], generation=True),  # 22,000 characters
    Conversation([{"role": "user", "content": _SCHEMA * 300}], generation=True),
    Conversation([*_TURNS * 16, _TURNS[0]], generation=True),
)


def require_bounded(
    template: str, tokens: Mapping[str, str], conversations: Sequence[Conversation] = (), *, date: str | None = None
) -> None:
    """Check that an untrusted template stays within the limits for short, long and many messages, and for those given.

    The rendered text does not matter here, and neither does a refusal of some messages. The template can still be slow
    for other kinds of messages.

    Raises:
        ConfigError: the template takes too much time or memory, or writes too much text.
    """
    render_bounded(template, (*SAMPLES, *conversations), tokens, date=date)


def render_bounded(
    template: str, conversations: Sequence[Conversation], tokens: Mapping[str, str], *, date: str | None = None
) -> list[Rendering]:
    """Render conversations in a child process with at most 1 s of CPU time, 256 MiB, and 4 million characters each.

    Args:
        template: Jinja source, at most 262,144 characters.
        conversations: the conversations to render.
        tokens: bos_token, eos_token, … as text.
        date: the return value of ``strftime_now``. None leaves the function undefined.

    Raises:
        ConfigError: the template exceeds these limits.
        SQLQuarryError: the child process does not start.
    """
    reason = _unbounded.get(template)
    if reason is None and len(template) > MAX_TEMPLATE_CHARACTERS:
        reason = f"it has {len(template):,} characters, more than {MAX_TEMPLATE_CHARACTERS:,}"
    if reason is None:
        request = {"template": template, "conversations": list(conversations), "tokens": dict(tokens), "date": date}
        answer = _answer(json.dumps(request, sort_keys=True))
        if not isinstance(answer, str):
            return list(answer)
        reason = answer
        if len(_unbounded) >= _REMEMBERED:
            _unbounded.clear()
        _unbounded[template] = reason
    raise ConfigError(
        f"the chat template {template[:80]!r} was stopped: {reason}. It could hang or crash any program that renders "
        "it. Use the template of the model's original publisher, or write your own."
    )


@functools.lru_cache(maxsize=_REMEMBERED)
def _answer(request: str) -> tuple[Rendering, ...] | str:
    """Return each conversation's rendering, or the reason why the child was stopped."""
    command = [sys.executable, "-I", "-S", "-c", _PROGRAM, *filter(None, sys.path)]
    environment = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    try:
        ended = subprocess.run(  # noqa: S603 - our own program
            command, input=request.encode(), capture_output=True, timeout=_WALL_S, env=environment, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {_WALL_S:g} s"
    ready, *lines = ended.stdout.decode().splitlines() or [""]
    if ready != _READY:
        last_line = ended.stderr.decode(errors="replace").strip().rpartition("\n")[2]
        raise SQLQuarryError(
            f"the process that renders chat templates does not start (exit status {ended.returncode}: {last_line}). "
            f"Check that {sys.executable} can import jinja2."
        )
    if ended.returncode or not lines:
        return f"it takes more than {CPU_S:g} s or {MEMORY_BYTES >> 20} MiB (exit status {ended.returncode})"
    answer = json.loads(lines[0])
    return answer if isinstance(answer, str) else tuple(Rendering(*one) for one in answer)


def serve() -> None:
    """Read one request from standard input, and write a list of [text, failure] or the reason for stopping as text."""
    request = json.load(sys.stdin)
    _limit_process()
    sys.stdout.write(f"{_READY}\n")
    sys.stdout.flush()
    try:
        answer: Any = [_rendered(request, Conversation(*one)) for one in request["conversations"]]
    except MemoryError:
        answer = f"it takes more than {MEMORY_BYTES >> 20} MiB"
    except _TooLongError:
        answer = f"it writes more than {MAX_RENDERED_CHARACTERS:,} characters"
    sys.stdout.write(f"{json.dumps(answer)}\n")


class _TooLongError(Exception):
    """A template writes more than `MAX_RENDERED_CHARACTERS`."""


def _rendered(request: Mapping[str, Any], conversation: Conversation) -> Rendering:
    variables = dict(request["tokens"])
    if request["date"] is not None:
        variables["strftime_now"] = lambda _: request["date"]
    try:
        pieces = compile_template(request["template"]).generate(
            messages=list(conversation.messages),
            tools=None,
            documents=None,
            add_generation_prompt=conversation.generation,
            **variables,
        )
        return Rendering(_joined(pieces))
    except (MemoryError, _TooLongError):
        raise
    except ConfigError as error:
        return Rendering("", str(error)[:_MESSAGE_CHARACTERS])
    except Exception as error:  # noqa: BLE001 - a template is code from the model's authors and can raise anything
        reason = f"{type(error).__name__}: {error}"[:_MESSAGE_CHARACTERS]
        return Rendering("", f"the chat template cannot be rendered ({reason})")


def _joined(pieces: Iterable[str]) -> str:
    found, size = [], 0
    for piece in pieces:
        size += len(piece)
        if size > MAX_RENDERED_CHARACTERS:
            raise _TooLongError
        found.append(piece)
    return "".join(found)


def _limit_process() -> None:
    """Make the kernel stop this process at its limits, even within one operation.

    On systems that do not support this, the parent stops the process by wall time.
    """
    with contextlib.suppress(AttributeError):
        signal.signal(signal.SIGPROF, signal.SIG_DFL)  # the parent may ignore the signal, and that is inherited
        signal.setitimer(signal.ITIMER_PROF, CPU_S)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        for name, soft, hard in (
            (resource.RLIMIT_CORE, 0, 0),
            (resource.RLIMIT_CPU, 10, 10),
            (resource.RLIMIT_AS, MEMORY_BYTES, MEMORY_BYTES),
        ):
            resource.setrlimit(name, (soft, hard))


def _raise(message: str) -> NoReturn:
    raise ConfigError(f"the chat template refuses these messages: {message}")


@functools.lru_cache(maxsize=16)
def compile_template(source: str) -> jinja2.Template:
    """Compile a chat template in Jinja's sandbox, in the same way as transformers.

    Raises:
        jinja2.TemplateSyntaxError: the template cannot be parsed.
    """
    # transformers' {% generation %} blocks have no meaning here, but they affect white space, so they become {% if %}.
    # `strftime_now` stays undefined, because a prompt with today's date would differ between training and serving.
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )
    environment.globals["raise_exception"] = _raise
    # Jinja's own filter escapes HTML.
    environment.filters["tojson"] = functools.partial(json.dumps, ensure_ascii=False)
    try:
        template = environment.from_string(_without_marks(source))
    except (jinja2.TemplateSyntaxError, MemoryError):
        raise
    except Exception as error:  # for example a RecursionError or SyntaxError that Jinja's parser did not notice
        raise jinja2.TemplateSyntaxError(f"{type(error).__name__}: {error}", lineno=1) from error
    # Each rendering copies the globals, and Jinja's chain of maps takes half of the time for this.
    template.globals = dict(template.globals)
    return template


def template_variables(source: str) -> set[str]:
    """Return the names of the variables that a chat template uses, such as `messages`.

    Raises:
        jinja2.TemplateSyntaxError: the template cannot be parsed.
    """
    return jinja2.meta.find_undeclared_variables(compile_template(source).environment.parse(_without_marks(source)))


def _without_marks(source: str) -> str:
    source = re.sub(r"({%[-+]?\s*)generation(\s*[-+]?%})", r"\1if true\2", source)
    return re.sub(r"({%[-+]?\s*)endgeneration(\s*[-+]?%})", r"\1endif\2", source)
