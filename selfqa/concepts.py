"""What a figure is a figure of, as bags of word stems (English) or pairs of characters (Chinese)."""

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache

import snowballstemmer

from finlm.figures import find_figures, narrow

_STEM = snowballstemmer.stemmer("english")
_EMPTY = frozenset(
    re.findall(
        r"\w+",
        """a an the of in for to at by on as from with and or its it was were is are be been being had has
        have that this which than what when how much many did do does much high low state give tell show
        company corporation amount amounts value values figure number respective respectively year years
        ended end fiscal quarter month months period day million billion thousand millions billions
        thousands dollar dollars usd rmb reported recorded posted came stood reach reached amounted totaled
        totalled between during over both about approximately there their our we compared respectively s inc
        corp ltd co percentage percent change changed difference increase increased decrease decreased rose
        fell grew declined growth decline rise fall up down average proportion ratio sum calculate according
        per each respective against versus vs all if any it they been such these those corresponding also
        while whereas then only just point points basis higher lower more less largest smallest following
        text""",
    )
)
_ZH_EMPTY = re.compile(
    r"是多少|为多少|有多少|多少|请说明|请问|分别|什么|如何|哪个|哪一年|变化了?|百分之几|百分比|幅度|同比|环比|相比|比上年|较上年|比|较"
    r"|增长|下降|增加|减少|增减|变动|金额|数额|人民币|达到|达|共计|合计为|约为|约|实现|为|是|的|了|在|和|与|及|从|至|到|(?<![母子])公司|单位|情况|其中"
)


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    stem: str = _STEM.stemWord(word)
    return stem


@lru_cache(maxsize=65536)
def tokens(text: str, language: str) -> frozenset[str]:
    """Return what a text says besides figures, periods and empty words."""
    plain = narrow(text)
    if language == "zh":
        return frozenset(_han_pairs(plain)) | frozenset(_words(plain))
    return frozenset(_words(plain))


def _words(text: str) -> Iterable[str]:
    text = text.replace("’", "'").lower()
    for word in re.findall(r"[a-z][a-z&]*(?:'[a-z]+)?", text):
        bare = word.removesuffix("'s")
        if bare not in _EMPTY:
            yield _stem(bare)


def _han_pairs(text: str) -> Iterable[str]:
    for run in re.findall(r"[一-鿿]+", _ZH_EMPTY.sub(" ", text)):
        yield from (run[at : at + 2] for at in range(len(run) - 1)) if len(run) > 1 else (run,)


def camel_words(name: str) -> str:
    """`us-gaap:NetIncomeLoss` -> "Net Income Loss"; `Member` at the end of a dimension's name is dropped."""
    name = re.sub(r"(?:Segment)?Member$|Axis$", "", name.split(":")[-1])
    return re.sub(r"(?<=[a-z])(?=[A-Z\d])|(?<=[A-Z])(?=[A-Z][a-z])|(?<=\d)(?=[A-Z])", " ", name)


def without_figures(text: str) -> str:
    """Blank every figure of a text, the units with it; offsets stay."""
    for figure in find_figures(text):
        text = text[: figure.start] + " " * (figure.end - figure.start) + text[figure.end :]
    return text


def weight(bag: Iterable[str], rarity: Mapping[str, float]) -> float:
    """Return the sum of the rarities of tokens; one that the document does not know counts as rare."""
    return sum(rarity.get(token, 3.0) for token in bag)


def likeness(
    claim: Mapping[str, float], own: frozenset[str], around: frozenset[str], rarity: Mapping[str, float]
) -> float:
    """Return how well a figure's words answer for a claim's: 1 where each says what the other says.

    Args:
        claim: Token of the claim -> its weight.
        own: Tokens of the figure's own label.
        around: Tokens of what stands around it: heading row, column, title.
        rarity: Token -> how telling it is in this document.

    Returns:
        The mean of the share of the claim that label and surroundings say, and of the share of the label that the
        claim says.
    """
    asked = sum(share * rarity.get(token, 3.0) for token, share in claim.items())
    if not asked or not own:
        return 0.0
    said = sum(share * rarity.get(token, 3.0) for token, share in claim.items() if token in own)
    near = sum(share * rarity.get(token, 3.0) for token, share in claim.items() if token in around and token not in own)
    covered = weight((token for token in own if token in claim), rarity) / weight(own, rarity)
    return 0.5 * (said + 0.9 * near) / asked + 0.5 * covered
