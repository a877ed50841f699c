"""The labelling pages: templates, the wording of a language, and versioned guidelines.

    pairs   two answers, eight levels
    ranks   four answers, a rank for each; equal ranks are ties

A page knows nothing of models. A task carries an opaque `pair_id`, `prompt_html`, and `a_html`, `b_html` … for the
answers as placed, no more.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from xml.etree import ElementTree
from xml.sax.saxutils import quoteattr

import jinja2
import yaml
from markupsafe import Markup

from annotation.rendering import prompt_html, text_html
from finlm.errors import UserError
from finlm.records import Prompt

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidelines:
    """What annotators are asked to follow.

    Example:
        Guidelines(version="1.0", text="Which answer would you rather give …")
    """

    version: str
    text: str
    """Markdown."""


def read_guidelines(path: Path) -> Guidelines:
    """Read guidelines whose first line is `Version 1.2` (or `版本 1.2`).

    Raises:
        UserError: There is no such file, it is not UTF-8, or its first line names no version.
    """
    try:
        first, _, text = path.read_text(encoding="utf-8").partition("\n")
    except FileNotFoundError:
        raise UserError(f"--guidelines {path}: no such file.") from None
    except UnicodeDecodeError:
        raise UserError(f"--guidelines {path}: the file is not UTF-8; convert it.") from None
    version = re.fullmatch(r"\ufeff?(?:[Vv]ersion|版本)\s*([\w.-]+)\s*", first)
    if not version or not text.strip():
        raise UserError(f"--guidelines {path}: the first line must be like 'Version 1.2', the text must follow it.")
    return Guidelines(version=version.group(1), text=text.strip())


def shipped_guidelines(language: Language, kind: PageKind = "pairs") -> Path:
    """The guidelines that come with the project."""
    return PAGES / f"guidelines{'_ranks' if kind == 'ranks' else ''}.{language}.md"


def pair_page(language: Language, guidelines: Guidelines) -> str:
    """The labelling configuration of pairs with eight levels, as XML."""
    return _page("pair.xml", language, guidelines, levels=LEVELS, flag_keys=FLAG_KEYS)


def rank_page(language: Language, guidelines: Guidelines) -> str:
    """The labelling configuration of four answers with a rank each, as XML."""
    keys = {"rank_keys": RANK_KEYS, "fault_keys": FAULT_KEYS, "flag_keys": SET_FLAG_KEYS}
    return _page("ranks.xml", language, guidelines, places=PLACES, ranks=RANKS, **keys)


def labelling_page(kind: PageKind, language: Language, guidelines: Guidelines) -> str:
    """The labelling configuration of a kind of page."""
    return (rank_page if kind == "ranks" else pair_page)(language, guidelines)


def _page(template: str, language: Language, guidelines: Guidelines, **known: object) -> str:
    loader = jinja2.FileSystemLoader(PAGES)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True
    )
    # quoteattr also writes line breaks as &#10;, which an XML attribute would otherwise lose
    environment.filters["attribute"] = lambda text: Markup(quoteattr(text))
    return environment.get_template(template).render(words=_wording()[language], guidelines=guidelines, **known)


def _wording() -> dict[Language, Any]:
    return yaml.safe_load((PAGES / "wording.yaml").read_text(encoding="utf-8"))  # type: ignore[no-any-return]


def kind_of(label_config: str) -> PageKind:
    """Which kind of page a labelling configuration is; one that somebody changed still has its choices."""
    return "ranks" if re.search(r"name=[\"']rank_a[\"']", label_config) else "pairs"


def guidelines_version(label_config: str) -> str:
    """The version of the guidelines that a labelling configuration shows; empty where it shows none."""
    titles = [re.escape(words["guidelines"]).replace(r"\{version\}", r"([\w.-]+)") for words in _wording().values()]
    try:
        panels = ElementTree.fromstring(label_config).iter("Panel")
    except ElementTree.ParseError:
        return ""
    found = [match for panel in panels for title in titles if (match := re.fullmatch(title, panel.get("value", "")))]
    return found[0].group(1) if found else ""


def page_hash(label_config: str) -> str:
    """Names a labelling configuration in the log, so that each vote tells which page it was made on."""
    return hashlib.sha256(label_config.encode("utf-8")).hexdigest()[:16]


def task_data(pair_id: str, prompt: Prompt, answers: Sequence[str]) -> dict[str, str]:
    """What the server is told: an opaque id and harmless texts, the answers in the order of their places."""
    shown = {f"{place}_html": text_html(answer) for place, answer in zip(PLACES, answers, strict=False)}
    return {"pair_id": pair_id, "prompt_html": prompt_html(prompt.messages), **shown}
