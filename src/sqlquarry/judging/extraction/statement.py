"""Find the start and the end of a statement in text that may be SQL, prose or both."""

from __future__ import annotations

import html
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from sqlquarry.judging.extraction.prose import is_prose, is_sentence
from sqlquarry.sql.parsing import error_place

SPECIAL = r"<\|[\w ]{2,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|\[/SQL\]|<(?:end|start)_of_turn>|<pad>|<eos>|<bos>"
_NAME = r"(?:\w{1,128}|\"[^\"\n]{1,128}\"|`[^`\n]{1,128}`|\[[^\]\n]{1,128}\])"
_WITH = rf"WITH\s+(?:RECURSIVE\s+)?{_NAME}\s*(?:\([^()]{{0,1000}}\)\s*)?AS\b"
_OPENING = r"(?:\(\s{0,9}){0,20}"
_BEGINS = re.compile(
    rf"{_OPENING}(?:SELECT\b|{_WITH}|VALUES\s*\(|(?:INSERT|REPLACE)\s+(?:OR|INTO)\b|UPDATE\s+\S+\s+SET\b|DELETE\s+FROM\b|"
    r"(?:CREATE|DROP|ALTER)\s+(?:TEMP|TEMPORARY|UNIQUE|VIRTUAL|TABLE|VIEW|INDEX|TRIGGER|OR\s+REPLACE|SCHEMA|DATABASE)\b|"
    r"(?:PRAGMA|ATTACH|DETACH|VACUUM|EXPLAIN)\b)",
    re.IGNORECASE,
)
_READS = re.compile(rf"{_OPENING}(?:SELECT|WITH|VALUES|FROM|TABLE)\b", re.IGNORECASE)
# Statements that prepare the query after them.
_CONTEXT = re.compile(r"(?:CREATE|PRAGMA|SET|USE|INSERT)\b", re.IGNORECASE)
_SHORT_FORMS = {"duckdb": r"FROM\s+\S", "postgres": r"TABLE\s+\S", "mysql": r"TABLE\s+\S", "redshift": r"TABLE\s+\S"}
_LEADING = re.compile(r"(?:\s+|--[^\n]*\n|/\*(?:[^*]|\*(?!/))*\*/)+")
# A query begins a line (after bullets, quotes and bold marks), follows a colon or quote, or is in upper case. Text
# such as "the SELECT statement" is prose.
_QUERY = re.compile(
    r"(?:^[ \t>*_#•-]{0,9}(?:\d{1,3}[.)][ \t]+)?[*_`\"'“]{0,3}|[:`\"“*][ \t]{0,9})"
    rf"(?P<start>\({{0,20}}(?i:SELECT\b|{_WITH}))|(?P<capitals>\bSELECT\b|\b{_WITH})",
    re.MULTILINE,
)
_PROSE_AFTER = re.compile(
    r"(?:SELECT|WITH)[`\"'*]{0,3}\s*(?:$|(?:to|the|and|is|from)\b|"
    r"(?:statements?|quer(?:y|ies)|clauses?|keywords?|commands?|operators?)\b(?!\s*(?:,|FROM\b)))",
    re.IGNORECASE,
)
_SELECT, _FROM = re.compile(r"\bselect\b", re.IGNORECASE), re.compile(r"\bfrom\b", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:lt|gt|amp|quot|apos|#0?39|#x27);", re.IGNORECASE)
_CLOSING = {"`": "`", '"': '"', "'": "'", "“": "”", "(": ")", "**": "**"}
_SENTENCE_END = re.compile(r"(?<=[\w)'\"`\]*])(?:[.!](?=\s|$)|。)")
_CONTINUES = re.compile(
    r"(?:[,(=<>+\-/|.]|\b(?:AND|OR|NOT|IN|ON|BY|AS|SELECT|FROM|WHERE|JOIN|UNION|ALL|SET|ORDER|GROUP|HAVING|LIMIT|OFFSET|"
    r"INNER|LEFT|RIGHT|FULL|OUTER|CROSS|NATURAL|WITH|DISTINCT|CASE|WHEN|THEN|ELSE|BETWEEN|LIKE|IS))\s*$",
    re.IGNORECASE,
)
_PARAGRAPH = re.compile(r"\n[ \t]*\n")
# sqlglot's time grows with the square of the number of consecutive indexes: a[b][c]
_INDEXES, _MOST_INDEXES = re.compile(r"\]\s*\["), 40
_PARSED_CHARACTERS, _PARSES, _QUOTE_ENDS, _STARTS = 5_000, 12, 5, 4


class Parser:
    """sqlglot with a budget of 12 texts and 5,000 characters in total. Beyond that, it reports no errors.

    sqlglot takes 3 to 20 microseconds per character, and a repetitive answer contains many candidates.
    """

    def __init__(self, dialect: str) -> None:
        self.dialect = dialect
        self._characters, self._parses = _PARSED_CHARACTERS, _PARSES

    def error_in(self, sql: str) -> int | None:
        """Return the position of the first error, or None if there is none or the budget ends before it."""
        seen = sql[: self._characters]
        if not seen or not self._parses or len(_INDEXES.findall(seen)) > _MOST_INDEXES:
            return None
        self._characters -= len(seen)
        self._parses -= 1
        place = error_place(seen, self.dialect)
        if place == len(seen):  # the tokenizer does not report where an unclosed literal begins
            place = _open_literal(seen, self.dialect)
        # An error near the end may be due to the part that was cut off.
        return None if place is not None and len(seen) < len(sql) and place > len(seen) - 200 else place

    def reads(self, sql: str) -> bool:
        """Return whether `sql` is certainly one complete statement."""
        return 0 < len(sql) <= self._characters and self._parses > 0 and self.error_in(sql) is None


def begins(text: str, dialect: str = "") -> bool:
    """Return whether the text begins like a statement."""
    short = _SHORT_FORMS.get(dialect)
    return bool(_BEGINS.match(text) or (short and re.match(short, text, re.IGNORECASE)))


def reads(sql: str) -> bool:
    """Return whether the first word of a statement is that of a query."""
    return bool(_READS.match(sql))


def begins_with_sql(text: str, parser: Parser) -> bool:
    """Return whether the answer is SQL from its first word on. "Select all rows:" before a code block is not SQL."""
    text = without_comments(text, parser.dialect)
    if not begins(text, parser.dialect) or _PROSE_AFTER.match(text):
        return False
    first, rest = _first_statement(text, parser.dialect)
    if _CONTEXT.match(first) and rest.strip():
        return False
    if not _BEGINS.match(text):  # FROM and TABLE may also begin a sentence
        return parser.reads(first)
    marked = re.search(rf"```|\[SQL\]|<\w{{1,20}}>|{SPECIAL}", text, re.IGNORECASE)
    return not marked or parser.reads(first)


def statement_in(text: str, parser: Parser) -> str:
    """Return the first query in a text, otherwise the first other statement, or "" if there is no statement."""
    first = ""
    while True:
        found, text = _next_statement(text, parser)
        if not found or reads(found):
            return found or first
        first = first or found
        if not _CONTEXT.match(found):
            return first


def without_comments(text: str, dialect: str = "") -> str:
    """Return the text without leading comments. They stay if no statement follows, because the query may be in them."""
    text = text.strip()
    comments = _LEADING.match(text)
    return text[comments.end() :] if comments and begins(text[comments.end() :], dialect) else text


def _next_statement(text: str, parser: Parser) -> tuple[str, str]:
    """Return the next statement and the text after it."""
    text = without_comments(text, parser.dialect)
    if begins(text, parser.dialect) and not _PROSE_AFTER.match(text):
        sql, rest = _first_statement(text, parser.dialect)
        return _without_prose(sql, parser), rest
    tried: list[tuple[str, str]] = []
    for start, mark in _starts(text):
        sql, rest = _first_statement(text[start:], parser.dialect)
        lead = text[text.rfind("\n", 0, start) + 1 : start].rstrip(" *_`\"'“")
        sql = _without_full_stop(_without_prose(_up_to(sql, mark, parser), parser, in_sentence=lead[-1:].isalpha()))
        if not tried or parser.reads(sql):
            tried.append((sql, rest))
        if len(tried) > 1 or parser.error_in(sql) is None:
            break
    if tried:
        return tried[-1]
    if (lower := _SELECT.search(text)) and _FROM.search(text, lower.end()):
        sql, rest = _first_statement(text[lower.start() :], parser.dialect)
        lead = text[: lower.start()].rstrip(" *_`\"'“")
        sql = _without_full_stop(_without_prose(sql, parser, in_sentence=lead[-1:].isalpha()))
        if not is_prose(sql) and parser.reads(sql):
            return sql, rest
    return "", ""


def _without_full_stop(sql: str) -> str:
    """Return the query without the full stop of the sentence around it, which a parser takes for part of a number."""
    return sql[:-1] if sql[-2:-1].isdigit() and sql.endswith(".") else sql


def _starts(text: str) -> Iterator[tuple[int, str]]:
    """Yield the positions in prose where queries may begin, each with the mark before it.

    If only upper case indicates the first one, clear ones may follow. Otherwise the first one is the only one.
    """
    first_is_clear = None
    for _, found in zip(range(_STARTS * 4), _QUERY.finditer(text), strict=False):
        start = found.start(found.lastgroup or 0)
        if _PROSE_AFTER.match(text, start):
            continue
        clear = found.lastgroup == "start"
        if first_is_clear is None:
            first_is_clear = clear
        elif first_is_clear or not clear:
            continue
        lead = text[text.rfind("\n", 0, start) + 1 : start]
        mark = "**" if lead.endswith("**") else lead[-1:]
        yield start, "(" if mark not in _CLOSING and lead.count("(") > lead.count(")") else mark


def _up_to(query: str, mark: str, parser: Parser) -> str:
    """Return the query up to the mark that closes `mark`. The query itself may contain the closing mark."""
    closing = _CLOSING.get(mark)
    if closing is None:
        return query
    ends = [found.start() for found in re.finditer(re.escape(closing), query)]
    for end in ends[:_QUOTE_ENDS]:
        found = query[:end].strip()
        if len(found.split(None, 1)) > 1 and parser.reads(found):  # sqlglot also accepts SELECT alone
            return found
    line = len(query.split("\n", 1)[0]) if mark in "\"'" else len(query)
    last = [end for end in ends if end < line][-1:]
    return query if mark == "(" or not last else query[: last[0]].strip()


def _first_statement(text: str, dialect: str) -> tuple[str, str]:
    """Return the first statement and the text after it."""
    lexer = _lexer(dialect)
    for found in lexer.finditer(text):
        if found["entity"]:  # the answer is escaped for HTML
            return _first_statement(text[: found.start()] + html.unescape(text[found.start() :]), dialect)
        if found["end"]:
            return text[: found.start()].strip(), text[found.end() :]
    return text.strip(), ""


@lru_cache(maxsize=64)
def _lexer(dialect: str) -> re.Pattern[str]:
    """Return a pattern for ends of statements, and for the literals and comments of a dialect that may contain ends.

    An unclosed quote or comment extends to the end, so that no text is scanned twice.
    """
    from sqlglot import Dialect

    found = Dialect.get(dialect) or Dialect
    tokenizer = found.tokenizer_class
    escapes = set(tokenizer.STRING_ESCAPES)
    kinds = []
    if tokenizer.HEREDOC_STRINGS:
        kinds.append(r"(?P<tag>\$(?:[A-Za-z_]\w{0,60})?\$).*?(?:(?P=tag)|\Z)")
    if any(start == "$$" for start in tokenizer.RAW_STRINGS):
        kinds.append(r"\$\$.*?(?:\$\$|\Z)")
    if any(str(start[0]).upper() == "E'" for start in tokenizer.BYTE_STRINGS):
        kinds.append(_literal("'", backslash=True, before=r"(?<!\w)[eE]"))
    kinds += [_literal(quote, backslash="\\" in escapes) for quote in tokenizer.QUOTES if len(quote) == 1]
    for mark in tokenizer.IDENTIFIERS:
        start, end = mark if isinstance(mark, tuple) else (mark, mark)
        # An unclosed bracket belongs to an array, and an unclosed backtick to Markdown.
        inner = rf"[^{re.escape(start + end)}\n]{{1,128}}"
        kinds.append(_literal('"') if start == '"' else rf"{re.escape(start)}{inner}{re.escape(end)}")
    for mark in tokenizer.COMMENTS:
        kinds.append(r"/\*.*?(?:\*/|\Z)" if isinstance(mark, tuple) else rf"{re.escape(mark)}[^\n]*")
    return re.compile(
        rf"(?P<end>[;；]|```|</\w{{1,30}}>|{SPECIAL})|{'|'.join(dict.fromkeys(kinds))}|(?P<entity>{_ENTITY.pattern})",
        re.DOTALL,
    )


def _open_literal(text: str, dialect: str) -> int:
    """Return the start of the unclosed literal, or the end of the text if all literals are closed."""
    last = next(reversed([found for found in _lexer(dialect).finditer(text) if found.end() == len(text)]), None)
    if last is None or last["end"] or last["entity"] or (len(last[0]) > 1 and last[0][-1] == last[0][0]):
        return len(text)
    return last.start()


def _literal(quote: str, *, backslash: bool = False, before: str = "") -> str:
    inner = rf"[^{quote}\\]|\\.|{quote}{quote}" if backslash else rf"[^{quote}]|{quote}{quote}"
    return rf"{before}{quote}(?:{inner})*(?:{quote}|\Z)"


def _without_prose(sql: str, parser: Parser, *, in_sentence: bool = False) -> str:
    """Cut off prose, from the first paragraph of prose or from the last boundary before the parser's error.

    Args:
        sql: a statement and the text after it.
        parser: the parser of its dialect.
        in_sentence: the statement is quoted in a sentence, which may continue after it without a full stop.
    """
    error = parser.error_in(sql)
    if error is None:
        for paragraph in _PARAGRAPH.finditer(sql):
            before = sql[: paragraph.start()].rstrip()
            if is_prose(sql[paragraph.end() :]) and _ends_a_clause(before) and parser.reads(before):
                return before
        return sql
    # The full stops in a value such as 'Comp. Sci.' do not end a sentence.
    plain = _lexer(parser.dialect).sub(lambda found: found[0] if found["end"] else "x" * len(found[0]), sql)
    for place, is_rest in _boundaries(plain, error, in_sentence=in_sentence):
        before, after = sql[:place].rstrip(), sql[place:].lstrip(" \t.!。*_")
        sentence = re.split(r"\n|[.!]\s", plain[:place].rstrip())[1:][-1:]
        if sentence and is_prose(sentence[0]):  # the prose began earlier
            continue
        if is_rest(after) and _ends_a_clause(before) and parser.reads(before):
            return before
    return sql


def _ends_a_clause(sql: str) -> bool:
    """Return whether a statement may end here. sqlglot accepts a trailing comma or operator."""
    return not _CONTINUES.search(sql[-20:])


def _boundaries(sql: str, error: int, *, in_sentence: bool) -> list[tuple[int, Callable[[str], bool]]]:
    """Return positions at or before an error where prose may begin, each with a test for the rest.

    Starts of lines and sentences come first, then starts of words.
    """
    seen = sql[: error + 1]
    lines = [place + 1 for place, sign in enumerate(seen) if sign == "\n"]
    sentences = [found.start() for found in _SENTENCE_END.finditer(sql, 0, error + 2)]
    offset = max(0, len(seen) - 200)
    words = [offset + found.start() for found in re.finditer(r"(?<=\s)\S", seen[offset:])][-3:] if in_sentence else []
    return [
        *((place, is_prose) for place in sorted({*lines, *sentences}, reverse=True)[:_PARSES]),
        *((place, is_sentence) for place in reversed(words)),
    ]
