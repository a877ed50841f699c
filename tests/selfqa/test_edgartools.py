"""Our reader of HTML beside edgartools' on a real inline-XBRL filing: every word and every figure, none besides.

edgartools hands out a page as text without telling where in it a fact or a cell stands; ours keeps the place of each,
which is what an answer's evidence is made of. So ours is kept, and held to theirs here (and to ixbrlparse's facts in
test_reading.py).
"""

import re
import warnings
from collections import Counter
from pathlib import Path

from selfqa.markup import read_html


def test_it_reads_what_edgartools_reads(shared_data: Path) -> None:
    markup = (shared_data / "filings" / "en" / "aapl-10-q-2025-08-01.html").read_text(encoding="utf-8")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the libraries that it stands on
        from edgar.documents import parse_html

        theirs = parse_html(markup).text()
    ours = read_html(markup).text
    for pattern, least in ((r"\d[\d,.]*\d|\d", 1500), (r"[A-Za-z]{3,}", 6000)):
        expected = Counter(re.findall(pattern, theirs))
        assert sum(expected.values()) > least
        assert Counter(re.findall(pattern, ours)) == expected
