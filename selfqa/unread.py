"""What is said of a file that gave no text: a rule, so that it can be counted, and a reason that names the way out."""

from dataclasses import dataclass
from typing import Literal, get_args

UnreadRule = Literal[
    "bad-row",
    "broken-link",
    "empty-file",
    "file-damaged",
    "file-locked",
    "link-loop",
    "no-permission",
    "no-text",
    "not-text",
    "pages-without-text",
    "reader-died",
    "too-large",
    "unknown-kind",
    "wrong-kind",
]
UNREAD_RULES: frozenset[str] = frozenset(get_args(UnreadRule))


@dataclass(frozen=True, slots=True)
class Unread:
    """A file, a row or some pages of it, that gave no text.

    Example:
        Unread("scan.pdf", "no-text", "scan.pdf has 12 pages without text; a scan needs OCR")
    """

    path: str
    rule: UnreadRule
    reason: str
    """A sentence that begins with the path."""


class Unreadable(Exception):
    """A reader cannot use the file; `reason` goes on where the file's name stands: "is protected by a password; …"."""

    def __init__(self, rule: UnreadRule, reason: str) -> None:
        super().__init__(reason)
        self.rule: UnreadRule = rule
        self.reason = reason
