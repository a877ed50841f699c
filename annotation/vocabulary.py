"""What the labelling pages ask, by the names under which a stored annotation has the answers, and what a page says.

`annotation/page.py` makes the pages; who reads what was annotated on them needs no more than this.
"""

import functools
import hashlib
import re
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree

import yaml

Language = Literal["en", "zh"]
PageKind = Literal["pairs", "ranks"]

PAGES = Path(__file__).with_name("pages")

LEVELS = ("A3", "A2", "A1", "A0", "B0", "B1", "B2", "B3")
"""The side that is better as shown, and by how much; in the page's order, keys 1 to 8."""

FLAG_KEYS = {"factual_a": "q", "factual_b": "w", "unsafe_a": "e", "unsafe_b": "r", "both_bad": "t", "bad_prompt": "y"}
"""Flags in the page's order with their keys; `_a` and `_b` are the sides as shown."""

PLACES = ("a", "b", "c", "d")
"""Places of the answers on the page of ranks."""
RANKS = ("1", "2", "3", "4")
"""1 is best; a rank may be given twice."""
RANK_KEYS = {"a": "1234", "b": "qwer", "c": "asdf", "d": "zxcv"}
"""Keys of the four ranks of each place: a row of the keyboard an answer."""
FAULT_KEYS = {"a": {"factual": "5", "unsafe": "6"}, "b": {"factual": "t", "unsafe": "y"}} | {
    "c": {"factual": "g", "unsafe": "h"}, "d": {"factual": "b", "unsafe": "n"}
}  # fmt: skip
"""Faults of each place's answer with their keys, to the right of its ranks."""
SET_FLAG_KEYS = {"all_bad": "7", "bad_prompt": "8"}
"""Flags of all answers together."""


@functools.cache
def wording() -> dict[Language, Any]:
    """What the pages say, by language."""
    return yaml.safe_load((PAGES / "wording.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def kind_of(label_config: str) -> PageKind:
    """Which kind of page a labelling configuration is; one that somebody changed still has its choices."""
    return "ranks" if re.search(r"name=[\"']rank_a[\"']", label_config) else "pairs"


def guidelines_version(label_config: str) -> str:
    """The version of the guidelines that a labelling configuration shows; empty where it shows none."""
    titles = [re.escape(words["guidelines"]).replace(r"\{version\}", r"([\w.-]+)") for words in wording().values()]
    try:
        panels = ElementTree.fromstring(label_config).iter("Panel")
    except ElementTree.ParseError:
        return ""
    found = [match for panel in panels for title in titles if (match := re.fullmatch(title, panel.get("value", "")))]
    return found[0].group(1) if found else ""


def page_hash(label_config: str) -> str:
    """Names a labelling configuration in the log, so that each vote tells which page it was made on."""
    return hashlib.sha256(label_config.encode("utf-8")).hexdigest()[:16]
