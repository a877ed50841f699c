"""What a figure is a figure of, as bags of word stems (English) or pairs of characters (Chinese)."""

import re
from collections.abc import Iterable
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
    r"是多少|为多少|有多少|多少|请说明|请问|分别|什么|如何|中?哪个|哪一年|更[高低多少大小]|变化了?|百分之几|百分比|幅度|同比|环比|相比|比上年|较上年|比|较"
    r"|增长|下降|增加|减少|增减|变动|金额|数额|人民币|达到|达|共计|合计为|约为|约|实现|为|是|的|了|在|和|与|及|从|至|到|(?<![母子])公司|单位|情况|其中"
)


@lru_cache(maxsize=65536)
def _stem(word: str) -> str:
    stem: str = _STEM.stemWord(word)
    return stem


@lru_cache(maxsize=8192)
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
        if run not in {"年", "月", "日", "元", "或"}:  # what is left of a period or a unit
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
