"""Tell prose from SQL by the words and signs of a text."""

from __future__ import annotations

import re

_WORD = re.compile(r"[^\W\d_][^\W_]*(?:['’][^\W\d_]+)?")
_SIGNS = re.compile(r"[=<>()\"`;|+/%\[\]{}]|'(?!\w)|(?<!\w)'|\w\.\w|\w_\w")
# Headings, tables, rules, quotes and lists in Markdown, and speakers or labels with a colon ("Human:", "Note:").
_MARKDOWN = re.compile(
    r"\s*(?:#{1,6}(?:\s|$)|\||---|===|\*\*|>\s+[A-Z]|[-*•]\s+[A-Z]\w+\s|\d+[.)]\s|[A-Z][\w ]{0,30}:(?!:)|~~~|"
    # The last line of a table in a console, a postscript, arrows and emoji.
    r"\d{1,9} rows?\)|P\. ?S\.|[\u2190-\u2bff\U0001f000-\U0001faff])"
)
_ENDS = re.compile(r"(?<!\d)[.!?:…。！？：][\"')*_`”]*\s*$")
_CONTRACTION = re.compile(r"\w['’](?:s|t|re|ve|ll|d|m)\b", re.IGNORECASE)
_KEYWORDS = frozenset(
    """
    select from where group by order having limit offset join left right inner outer full cross natural on using union
    intersect except and or not in case when then else end as with window values set asc desc distinct all between like
    ilike is null exists over partition rows range fetch first next only cast interval collate nulls last ties
    """.split()  # noqa: SIM905 - a string of words is easier to read and to change
)
# Frequent English words that are not SQL keywords.
_ENGLISH = (
    frozenset(
        """
    a an the this that these those it its i we you they them he she your our their my which who what where's here there
    is are was were be been will would can could should may might must do does did has have had to of for about also
    because but if so then than such any some more most each other only just please note let me us hope thanks sure
    here's let's query queries statement return returns get gets result results answer above below uses using used gives
    shows selects joins filters counts groups sorts orders finds retrieves assumes assuming since while however
    therefore needed required necessary
    """.split()  # noqa: SIM905 - a string of words is easier to read and to change
    )
    - _KEYWORDS
)
# A clause begins with these words, unless they are capitalized like the first word of a sentence.
_CLAUSES = frozenset(
    """
    from where group order having limit offset join left right inner outer full cross natural union intersect
    except with window for on and or
    """.split()  # noqa: SIM905 - a string of words is easier to read and to change
)
_LINE_CHARACTERS = 300


def is_prose(text: str) -> bool:
    """Return whether the text after a statement is prose or Markdown and not a clause. Its first line decides.

    A clause has signs, keywords and names. Prose has English words, full stops and few signs.
    """
    line = text.strip().split("\n", 1)[0][:_LINE_CHARACTERS].lstrip("(")
    if not line or _MARKDOWN.match(line):
        return True
    words = _WORD.findall(line)
    if not words or (words[0].lower() in _CLAUSES and not words[0].istitle()):
        return False
    english = sum(word.lower() in _ENGLISH for word in words)
    keywords = sum(word.lower() in _KEYWORDS for word in words)
    signs = len(_SIGNS.findall(_CONTRACTION.sub("", line)))
    ends = bool(_ENDS.search(line))
    capital = words[0].istitle()
    certain = capital and words[0].lower() in _ENGLISH and (ends or len(words) >= 3)
    if certain or (english >= 2 and english > signs and 2 * english >= keywords):
        return True
    if signs:
        return ends and (english >= signs or (signs == 1 and capital))
    if ends or _CONTRACTION.search(line):
        return keywords < len(words)
    return not keywords and (english > 0 or len(words) >= 3)


def is_sentence(text: str) -> bool:
    """Return whether the words after a statement on its line are certainly a sentence, or the end of one."""
    line = text.split("\n", 1)[0][:_LINE_CHARACTERS].rstrip()
    words = [word.lower() for word in _WORD.findall(line)]
    english = sum(word in _ENGLISH for word in words)
    enough = 3 if _ENDS.search(line) else 4
    return (
        len(words) >= enough and english >= 2 and english >= sum(word in _KEYWORDS for word in words) and is_prose(line)
    )
