"""Render reports as self-contained HTML pages of one style, which need no network and fit on a phone."""

from sqlquarry.pages.page import packed, render_page

__all__ = ["packed", "render_page"]
