"""EDGAR's complete submission text file: a header and all documents of a filing, one behind the other.

    <SEC-DOCUMENT>0000320193-24-000123.txt : 20241101
    <DOCUMENT>
    <TYPE>10-K
    <FILENAME>aapl-20240928.htm
    <TEXT> … </TEXT>
    </DOCUMENT>

Each document of prose is one of its own (EDGAR Filer Manual, volume II, "Public Dissemination Service").
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from selfqa.blocks import Source
from selfqa.formats.kinds import is_html
from selfqa.markup import read_html
from selfqa.plain import read_text
from selfqa.unread import Unreadable

_DOCUMENT = re.compile(r"<DOCUMENT>\s*<TYPE>(?P<type>[^\n<]+)(?P<head>.*?)<TEXT>(?P<text>.*?)</TEXT>", re.DOTALL)
_NO_PROSE = re.compile(r"GRAPHIC|ZIP|EXCEL|XML|JSON|PDF|COVER|EX-10[0-9]\.|EX-FILING", re.IGNORECASE)
_WRAPPER = re.compile(r"^\s*<(?:XBRL|PAGE)>|</XBRL>\s*$")


def is_submission(text: str) -> bool:
    """Is it the file that EDGAR offers as complete submission?"""
    return bool(re.match(r"\s*(?:-----BEGIN PRIVACY|<SEC-DOCUMENT>|<SEC-HEADER>|<DOCUMENT>\s*<TYPE>)", text))


def read_submission(text: str) -> Iterator[Source | Unreadable]:
    """Yield the documents of prose, and how many others there are.

    Raises:
        Unreadable: There is no document in it.
    """
    others: Counter[str] = Counter()
    count = 0
    for found in _DOCUMENT.finditer(text):
        count += 1
        kind = found["type"].strip()
        if _NO_PROSE.match(kind):
            others[kind] += 1
            continue
        body = _WRAPPER.sub("", found["text"])
        yield replace(read_html(body) if is_html(body.encode()) else read_text(body), is_row=True)
    if not count:
        raise Unreadable("file-damaged", "is a submission of EDGAR without a whole document; fetch it again")
    if others:
        told = ", ".join(f"{number} {kind}" for kind, number in others.most_common(5))
        yield Unreadable("no-text", f"holds {sum(others.values())} documents without prose besides ({told})")
