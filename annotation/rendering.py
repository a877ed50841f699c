"""Prompts and answers as HTML that cannot do anything.

Text from a corpus or a model is Markdown at most: its own HTML is shown as text, and what Markdown makes of it passes a
list of allowed tags without a single attribute. LaTeX becomes MathML and passes the same list; `display` of a formula
is the one attribute. Pictures and links stay as they were written, since a labelling page must not fetch or open
anything that a model asks for.
"""

from collections.abc import Sequence

import nh3
from markdown_it import MarkdownIt

from annotation.formulas import MATH_TAGS, formulas
from finlm.records import Message

ALLOWED_TAGS = frozenset(
    {"p", "br", "hr", "h1", "h2", "h3", "h4", "h5", "h6", "blockquote", "pre", "code", "em", "strong", "s"}
    | MATH_TAGS
    | {"ul", "ol", "li", "table", "thead", "tbody", "tr", "th", "td"}
)

# breaks: a single line break in a model's answer is meant as one
_markdown = (
    MarkdownIt("commonmark", {"html": False, "breaks": True})
    .enable(["table", "strikethrough"])
    .disable(["image", "link", "autolink", "reference"])
    .use(formulas)
)


def text_html(text: str) -> str:
    """Markdown as harmless HTML.

    Example:
        text_html("**A**<script>") == '<div class="fa-text"><p><strong>A</strong>&lt;script&gt;</p>\\n</div>'
    """
    return f'<div class="fa-text">{_harmless(text)}</div>'


def prompt_html(messages: Sequence[Message]) -> str:
    """The turns of a prompt; the page names their speakers in its own language, by the class of each turn."""
    if len(messages) == 1:
        return text_html(messages[0].content)
    turns = [f'<div class="fa-turn fa-{turn.role}">{_harmless(turn.content)}</div>' for turn in messages]
    return f'<div class="fa-text">{"".join(turns)}</div>'


def _harmless(text: str) -> str:
    return nh3.clean(_markdown.render(text), tags=set(ALLOWED_TAGS), attributes={"math": {"display"}}, link_rel=None)
