r"""LaTeX in Markdown as MathML, which a browser draws without a script.

    \( … \)   $ … $        in a line; between single dollars only what has a LaTeX sign: amounts of money have none
    \[ … \]   $$ … $$      on a line of its own

What latex2mathml cannot read stays as it was written.
"""

import re
from typing import Any
from xml.etree import ElementTree

from latex2mathml.converter import convert
from markdown_it import MarkdownIt
from markdown_it.rules_inline import StateInline

DELIMITERS = {
    r"\(": re.compile(r"\\\((.+?)\\\)", re.DOTALL),
    r"\[": re.compile(r"\\\[(.+?)\\\]", re.DOTALL),
    "$$": re.compile(r"\$\$(.+?)\$\$", re.DOTALL),
    # no space inside the dollars and no digit behind them, or two amounts of money would be one formula
    "$": re.compile(r"\$(?! )([^$\n]*[\\^_][^$\n]*)(?<! )\$(?!\d)"),
}
MATH_TAGS = frozenset(
    {"math", "mrow", "mi", "mn", "mo", "mtext", "mspace", "mstyle", "mpadded", "mfrac", "msqrt", "mroot"}
    | {"msub", "msup", "msubsup", "munder", "mover", "munderover", "mtable", "mtr", "mtd"}
)
LONGEST = 2000
"""Characters of a formula; what is longer is no formula, and converting it would take long."""


def formulas(markdown: MarkdownIt) -> None:
    """Let a Markdown parser find formulas; a plug-in for `MarkdownIt.use`."""
    markdown.inline.ruler.before("escape", "formula", _find)
    markdown.add_render_rule("formula", _render)


def _find(state: StateInline, silent: bool) -> bool:
    source = state.src
    for opening, pattern in DELIMITERS.items():
        if not source.startswith(opening, state.pos):
            continue
        found = pattern.match(source, state.pos, min(state.posMax, state.pos + LONGEST))
        if not found:
            continue
        drawn = _mathml(found.group(1).strip(), is_block=opening in {r"\[", "$$"})
        if not silent:
            token = state.push("formula", "math", 0) if drawn else state.push("text", "", 0)
            token.content = drawn or found.group(0)
        state.pos = found.end()
        return True
    return False


def _render(self: Any, tokens: Any, index: int, options: Any, env: Any) -> str:
    return str(tokens[index].content)


def _mathml(latex: str, *, is_block: bool) -> str:
    """MathML; empty where the LaTeX cannot be read."""
    if not latex:
        return ""
    try:
        drawn = convert(latex, display="block" if is_block else "inline")
        found = ElementTree.fromstring(drawn).iter()
    except Exception:  # a parser of what a model wrote: whatever it stumbles over, the text is shown
        return ""
    # \text passes tags on as they are written: what holds any other than MathML's is no formula
    return drawn if all(one.tag.rpartition("}")[2] in MATH_TAGS for one in found) else ""
