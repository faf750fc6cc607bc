"""Names, findings and addresses from outside are shown literally, without markup or terminal codes."""

import io

from rich.console import Console

from sqlquarry.bedrock.preflight import PreflightReport
from sqlquarry.bedrock.preflight.__main__ import show
from sqlquarry.bedrock.preflight.findings import error
from sqlquarry.bedrock.preflight.repairs import FileRepair

NAME = "[red]a[/red][link=http://x]b\x1b[2J\x9b1m\u202ec"


def console_and_text() -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=True, width=400, color_system=None), text


def test_findings_are_shown_literally() -> None:
    finding = error("code", NAME, f"message {NAME}", NAME, NAME)
    console, text = console_and_text()
    show(PreflightReport((finding,)), console)
    for shown in (text.getvalue(), str(finding), str(PreflightReport((finding,))), str(FileRepair(NAME, NAME))):
        assert r"[link=http://x]b\u{1b}[2J\u{9b}1m\u{202e}c" in shown
        assert not {"\x1b[2J", "\x9b", "\u202e"} & {sign for sign in ("\x1b[2J", "\x9b", "\u202e") if sign in shown}
