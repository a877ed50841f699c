"""A corpus of any size out of a few real filings: each copy is a filing of its own to whatever compares texts.

In every copy another third of the longer words change places with each other and every figure gets other digits (years
stay), so that structure, lengths and tables are a real filing's, and no copy repeats another.
"""

import random
import re
from pathlib import Path

_WORD = re.compile(r"[a-z]{5,}")
_FIGURE = re.compile(r"(?<![\w.])\d{1,3}(?:,\d{3})+(?:\.\d+)?|(?<![\w.])\d+\.\d+")
_HAN = re.compile(r"[\u4e00-\u9fff]")
_TEXT = re.compile(r">[^<]+<")


def write_copies(files: list[Path], folder: Path, number: int) -> int:
    """Write `number` filings, the real ones in turn, and return their bytes."""
    folder.mkdir(parents=True)
    texts = [path.read_text(encoding="utf-8") for path in files]
    size = 0
    for at in range(number):
        path, text = files[at % len(files)], texts[at % len(files)]
        other = altered(text, at, is_html=path.suffix == ".html") if at >= len(files) else text
        raw = other.encode()
        (folder / f"{at:05d}-{path.name}").write_bytes(raw)
        size += len(raw)
    return size


def altered(text: str, seed: int, *, is_html: bool) -> str:
    """Another filing of the same build."""
    draw = random.Random(seed)
    seen = _TEXT.findall(text) if is_html else [text]
    words = sorted({word for piece in seen for word in _WORD.findall(piece)})
    hans = sorted({char for piece in seen for char in _HAN.findall(piece)})
    changed = draw.sample(words, len(words) // 3)
    exchanged = draw.sample(hans, len(hans) // 10)
    other = dict(zip(changed, draw.sample(changed, len(changed)), strict=True))
    han = str.maketrans(dict(zip(exchanged, draw.sample(exchanged, len(exchanged)), strict=True)))

    def change(piece: str) -> str:
        piece = _WORD.sub(lambda found: other.get(found[0], found[0]), piece).translate(han)
        return _FIGURE.sub(lambda found: re.sub(r"\d", lambda digit: draw.choice("123456789"), found[0]), piece)

    return _TEXT.sub(lambda found: change(found[0]), text) if is_html else change(text)
