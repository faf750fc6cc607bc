"""The page on check-ups has every kind of finding and every repair as the code describes them."""

from __future__ import annotations

from sqlquarry.data.checkup.repair import REPAIRS
from sqlquarry.data.checkup.run import KINDS
from tools.checkup_tables import PAGE, page


def test_the_tables_are_up_to_date() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert page(text) == text, "run python -m tools.checkup_tables"
    assert all(f"\n| `{name}` | " in text for name in (*KINDS, *REPAIRS))


def test_stale_rows_are_replaced() -> None:
    old = "a\n<!-- kinds -->\n| `gone` |\n<!-- end of kinds -->\nb\n<!-- repairs -->\n<!-- end of repairs -->\nc"
    new = page(old)
    assert "gone" not in new
    assert new.startswith("a\n<!-- kinds -->\n| kind | severity |")
    assert new.endswith("<!-- end of repairs -->\nc")
