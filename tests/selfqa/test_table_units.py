"""What the templates say a table's figures count, as its note, its signs and its rows say it."""

from selfqa.document_facts import facts_of
from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.markup import read_html

PAGE = """<html><body><h1>Consolidated statements of operations</h1>
<p>(In millions, except number of shares, which are reflected in thousands, and per-share amounts)</p>
<table><tr><td></td><td>2024</td><td>2023</td></tr>
<tr><td>Total net sales</td><td>$94,036</td><td>$85,777</td></tr>
<tr><td>Gross margin</td><td>43,718</td><td>946</td></tr>
<tr><td>Other corporate expenses, net</td><td>(1,881)</td><td>(1,737)</td></tr>
<tr><td>Other income and expenses, net</td><td>(171)</td><td>(142)</td></tr>
<tr><td>Dividends per share</td><td>0.25</td><td>0.24</td></tr>
<tr><td>Shares used in computing earnings per share:</td></tr>
<tr><td>Basic</td><td>14,902,886</td><td>15,287,521</td></tr></table></body></html>"""


def test_shares_margins_and_expenses_of_a_statement() -> None:
    """Shares are in thousands, a margin of 43,718 is money, one of 946 may be none, expenses stand in parentheses."""
    source = read_html(PAGE)
    found = facts_of(source, Filing("Acme", "Acme", "en", 2024, 12), Lexicon(source.text))
    told = {(fact.metric, fact.period.year): fact.amount for fact in found.facts}
    assert told["total net sales", 2024] == "$94,036 million"
    assert told["basic shares used in computing earnings per share", 2024] == "14,902,886 thousand"
    assert told["gross margin", 2024] == "$43,718 million"
    assert ("gross margin", 2023) not in told
    assert told["other net corporate expenses", 2024] == "$1,881 million"
    assert not [metric for metric, _ in told if "income and expenses" in metric]
    assert {"unit-unknown", "sign-ambiguous"} <= {one.rule for one in found.dropped}
