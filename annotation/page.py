"""The labelling page: a template, the wording of a language, and versioned guidelines.

The page knows nothing of models. A task carries `pair_id`, `prompt_html`, `a_html` and `b_html`, no more.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.sax.saxutils import quoteattr

import jinja2
import yaml
from markupsafe import Markup

from annotation.rendering import prompt_html, text_html
from finlm.errors import UserError
from finlm.records import Prompt

Language = Literal["en", "zh"]

PAGES = Path(__file__).with_name("pages")

LEVELS = ("A3", "A2", "A1", "A0", "B0", "B1", "B2", "B3")
"""The side that is better as shown, and by how much; in the page's order, keys 1 to 8."""

FLAG_KEYS = {"factual_a": "q", "factual_b": "w", "unsafe_a": "e", "unsafe_b": "r", "both_bad": "t", "bad_prompt": "y"}
"""Flags in the page's order with their keys; `_a` and `_b` are the sides as shown."""


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


def shipped_guidelines(language: Language) -> Path:
    """The guidelines that come with the project."""
    return PAGES / f"guidelines.{language}.md"


def pair_page(language: Language, guidelines: Guidelines) -> str:
    """The labelling configuration of pairs with eight levels, as XML."""
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    # quoteattr also writes line breaks as &#10;, which an XML attribute would otherwise lose
    environment.filters["attribute"] = lambda text: Markup(quoteattr(text))
    template = environment.from_string((PAGES / "pair.xml").read_text(encoding="utf-8"))
    words = yaml.safe_load((PAGES / "wording.yaml").read_text(encoding="utf-8"))[language]
    return template.render(words=words, guidelines=guidelines, levels=LEVELS, flag_keys=FLAG_KEYS)


def page_hash(label_config: str) -> str:
    """Names a labelling configuration in the log, so that each vote tells which page it was made on."""
    return hashlib.sha256(label_config.encode("utf-8")).hexdigest()[:16]


def task_data(pair_id: str, prompt: Prompt, answer_a: str, answer_b: str) -> dict[str, str]:
    """What the server is told about a pair: an opaque id and three harmless texts."""
    return {
        "pair_id": pair_id,
        "prompt_html": prompt_html(prompt.messages),
        "a_html": text_html(answer_a),
        "b_html": text_html(answer_b),
    }
