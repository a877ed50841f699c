"""Inline XBRL: which number of a page is what, in whose words, of which period and unit."""

import re
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation

from lxml import etree

from selfqa.blocks import Tag
from selfqa.flow import Flow

_SPACE = re.compile(r"\s+")


@dataclass(frozen=True, slots=True)
class Context:
    """A period, and what the number is broken down to."""

    since: str
    until: str
    dimensions: tuple[str, ...]


def plain(element: etree._Element | None) -> str:
    """All text of an element, white space unified."""
    return " ".join("".join(str(piece) for piece in element.itertext()).split()) if element is not None else ""


def _texts(element: etree._Element, name: str) -> str:
    return "".join(plain(found) for found in element.iter(f"xbrli:{name}", name))


def contexts_of(root: etree._Element) -> dict[str, Context]:
    """Return the contexts of a page by their id."""
    found = {}
    for element in root.iter("xbrli:context", "context"):
        members = tuple(plain(member) for member in element.iter("xbrldi:explicitmember"))
        until = _texts(element, "instant") or _texts(element, "enddate")
        found[element.get("id") or ""] = Context(_texts(element, "startdate"), until, members)
    return found


def units_of(root: etree._Element) -> dict[str, str]:
    """Return the units of a page by their id: `USD`, `USD/shares`."""
    found = {}
    for element in root.iter("xbrli:unit", "unit"):
        measures = [plain(measure) for measure in element.iter("xbrli:measure", "measure")]
        found[element.get("id") or ""] = "/".join(measure.split(":")[-1] for measure in measures)
    return found


def note_tag(
    element: etree._Element, flow: Flow, start: int, contexts: dict[str, Context], units: dict[str, str]
) -> None:
    """Add the tag of an element that ends here and began at `start`; what is no number in digits has none."""
    written = flow.text[start:]
    start += len(written) - len(written.lstrip())
    value = _value(written, element)
    context = contexts.get(element.get("contextref") or "")
    if value is None or context is None:
        return
    unit = units.get(element.get("unitref") or "", "")
    concept = element.get("name") or ""
    flow.tags.append(Tag(start, len(flow), concept, value, unit, context.since, context.until, context.dimensions))


def _value(written: str, element: etree._Element) -> Decimal | None:
    """The number as the filer means it: format, scale and sign applied; None where the format is unknown."""
    kind = (element.get("format") or "").split(":")[-1].lower().replace("-", "")
    digits = _SPACE.sub("", written)
    if kind in {"fixedzero", "zerodash", "numdash"} or digits in {"—", "–", "-"}:
        digits = "0"
    elif kind in {"numcommadecimal", "numcommadot", "numunitdecimal"}:
        digits = digits.replace(".", "").replace(",", ".")
    else:
        digits = digits.replace(",", "")
    try:
        number = Decimal(digits).scaleb(int(element.get("scale") or 0))
    except (InvalidOperation, ValueError):
        return None
    return -number if element.get("sign") == "-" else number
