"""The labelling pages: templates, the wording of a language, and versioned guidelines.

    pairs   two answers, eight levels
    ranks   four answers, a rank for each; equal ranks are ties

A page knows nothing of models. A task carries an opaque `pair_id`, `prompt_html`, and `a_html`, `b_html` … for the
answers as placed, no more.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import jinja2
from markupsafe import Markup

from annotation.rendering import prompt_html, text_html
from annotation.vocabulary import (
    FAULT_KEYS,
    FLAG_KEYS,
    LEVELS,
    PAGES,
    PLACES,
    RANK_KEYS,
    RANKS,
    SET_FLAG_KEYS,
    Language,
    PageKind,
    wording,
)
from finlm.errors import UserError
from finlm.records import Prompt


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
    return environment.get_template(template).render(words=wording()[language], guidelines=guidelines, **known)


def task_data(pair_id: str, prompt: Prompt, answers: Sequence[str]) -> dict[str, str]:
    """What the server is told: an opaque id and harmless texts, the answers in the order of their places."""
    shown = {f"{place}_html": text_html(answer) for place, answer in zip(PLACES, answers, strict=False)}
    return {"pair_id": pair_id, "prompt_html": prompt_html(prompt.messages), **shown}
