"""Text of a page as it grows: white space is collapsed, a line break inside Chinese text is no space."""

import re

from selfqa.blocks import Tag

_WIDE = re.compile(r"[\u3000-\u30ff\u3400-\u9fff\uff00-\uffef]")


class Flow:
    """One line, put together from the pieces between a page's marks, with the tags that stand in it.

    Attributes:
        tags: Inline-XBRL numbers; their places count from the line's beginning.
    """

    def __init__(self, text: str = "", tags: list[Tag] | None = None) -> None:
        self.tags = tags or []
        self._pieces = [text] if text else []
        self._length = len(text)
        self._gap = ""
        """White space since the last word: nothing, a space, or a line break."""

    def __len__(self) -> int:
        return self._length

    @property
    def text(self) -> str:
        """What has been added so far."""
        if len(self._pieces) > 1:
            self._pieces = ["".join(self._pieces)]
        return self._pieces[0] if self._pieces else ""

    def space(self) -> None:
        """Keep what comes apart from what is there."""
        self._gap = self._gap or " "

    def add(self, piece: str) -> None:
        """Add text as it stands in the page."""
        words = piece.split()
        if not words:
            self._see_gap(piece)
            return
        if "\n" in piece:
            gaps = [found[0] for found in re.finditer(r"\s+", piece.strip())]
            self._see_gap(piece[: len(piece) - len(piece.lstrip())])
            for word, gap in zip(words, [*gaps, ""], strict=True):
                self._put(word)
                self._see_gap(gap)
        else:
            if piece[0].isspace():
                self.space()
            self._put(" ".join(words))
        self._see_gap(piece[len(piece.rstrip()) :])

    def _see_gap(self, white: str) -> None:
        if "\n" in white:
            self._gap = "\n"
        elif white:
            self.space()

    def _put(self, words: str) -> None:
        if self._gap and self._length:
            is_wrapped = self._gap == "\n" and (_WIDE.match(words[0]) or _WIDE.match(self._pieces[-1][-1]))
            words = words if is_wrapped else f" {words}"
        self._gap = ""
        self._pieces.append(words)
        self._length += len(words)
