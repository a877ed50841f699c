"""Texts that say the same: nearly word for word, and yet without a figure, a year or a name that tells them apart.

No torch: Self-QA's extractive part stands on this as well.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from math import ceil

from finlm.figures import FINANCE_WORDS, narrow

NEAR_DUPLICATE = 0.8
"""Two texts that share this much of their shingles (Jaccard) are one."""
_HAN = r"[一-鿿]"
_NUMERAL = "〇零一二三四五六七八九十百千万亿两"
_NUMBER_WORDS = frozenset(
    re.findall(
        r"\w+",
        """one two three four five six seven eight nine ten eleven twelve first second third fourth fifth half
        double twice dozen hundred thousand million billion trillion q1 q2 q3 q4""",
    )
)
_OPPOSITES = frozenset(
    re.findall(
        r"\w+",
        """not no never without before after above below over under more most less least fewer higher highest
        lower lowest largest smallest best worst up down rise rose fall fell increase increased decrease
        decreased grow grew growth decline declined gain loss buy sell long short call put assets
        liabilities start end beginning begin open close domestic foreign annual quarterly monthly current
        prior previous next last""",
    )
)
"""Words that turn a question round or name another quantity."""
_UNNAMED = frozenset(
    re.findall(
        r"\w+",
        """a an the what which who whom whose when where why how is are was were be do does did can could will
        would should may please kindly tell give show list name state explain describe summarise summarize
        compute calculate find say me us in on at for from by of to and or if i we you my our your it its
        this that these those there as with about briefly also then so now hi hello thanks thank answer
        question""",
    )
)
"""Words that are no name although they begin a sentence with a capital."""
_HARMLESS_HAN = frozenset(
    "请问一下吗呢啊呀吧的了是为多少什么如何怎样么有哪些您你帮我给出告诉简要说明介绍回答以下这个该，。？！、：；"
)
_TELLING_HAN = frozenset("不未无非没上下前后增减升降高低大小同环首末初总净毛长短买卖")


def shingles(text: str, *, words: int = 5, characters: int = 8) -> set[str]:
    """Return the runs of `words` words of a text, or of `characters` characters where it is Chinese."""
    if len(re.findall(_HAN, text)) * 4 > len(text):
        bare = re.sub(r"\s+", "", text)
        return {bare[at : at + characters] for at in range(max(1, len(bare) - characters + 1))}
    found = re.findall(r"\w+", text.lower())
    return {" ".join(found[at : at + words]) for at in range(max(1, len(found) - words + 1))}


def jaccard(one: set[str], other: set[str]) -> float:
    """Shared members over all members, 0 to 1 (Jaccard 1901); 1 for two empty sets."""
    shared = len(one & other)
    return shared / (len(one) + len(other) - shared) if one or other else 1.0


def near_duplicates(
    texts: Sequence[str],
    *,
    threshold: float = NEAR_DUPLICATE,
    words: int = 5,
    characters: int = 8,
    are_apart: Callable[[int, int], bool] = lambda one, other: False,
) -> dict[int, int]:
    """Return position -> position of the earlier text that it repeats nearly word for word.

    Exact Jaccard similarity of shingles: no hash can merge what is different. Two sets that reach the threshold t share
    one of the first n - ceil(t n) + 1 members of each when both are sorted alike (prefix filtering: Chaudhuri, Ganti
    and Kaushik 2006, "A primitive operator for similarity joins", section 4); sorted by rarity, few pairs are compared.

    Args:
        texts: The texts; a later one repeats an earlier one that repeats none itself.
        threshold: Least similarity, above 0 to 1.
        words: Words of a shingle.
        characters: Characters of a shingle of a Chinese text.
        are_apart: Says of two positions that these texts are different all the same.
    """
    sets = [shingles(text, words=words, characters=characters) for text in texts]
    frequency = Counter(member for members in sets for member in members)
    index: dict[str, list[int]] = defaultdict(list)
    found: dict[int, int] = {}
    for number, members in enumerate(sets):
        rarest = sorted(members, key=lambda member: (frequency[member], member))
        prefix = rarest[: len(rarest) - ceil(threshold * len(rarest) - 1e-9) + 1]
        for earlier in sorted({earlier for member in prefix for earlier in index.get(member, ())}):
            shared = len(members & sets[earlier])
            union = len(members) + len(sets[earlier]) - shared
            if shared >= threshold * union and not are_apart(number, earlier):
                found[number] = earlier
                break
        else:
            for member in prefix:
                index[member].append(number)
    return found


def normalised(text: str) -> str:
    """Return a text without differences of case and white space."""
    return " ".join(text.casefold().split())


def differ_in_substance(one: str, other: str) -> bool:
    """True if a figure, a year, a name, a metric or a direction tells two similar texts apart.

    It errs on the side of "apart": a near duplicate that stays costs little, a lost question is lost.
    """
    if _numbers(one) != _numbers(other):
        return True
    return _words_differ(one, other) or _han_differs(one, other)


def _numbers(text: str) -> list[str]:
    """Figures and number words in their order: "from 2023 to 2024" is not "from 2024 to 2023"."""
    plain = narrow(text).lower()
    chinese = rf"[{_NUMERAL}]{{2,}}|[{_NUMERAL}](?=年|月|日|季|个|家|倍|成|股)"
    pieces = re.findall(rf"\d+(?:[.,]\d+)*|{chinese}|[a-z]+\d?", plain)
    return [piece for piece in pieces if not re.match(r"[a-z]", piece) or piece in _NUMBER_WORDS]


def _words_differ(one: str, other: str) -> bool:
    first, second = _words(one), _words(other)
    counts, others = (Counter(word.casefold() for word in found) for found in (first, second))
    changed = (counts - others) + (others - counts)
    written = {word for word in [*first, *second] if word.casefold() in changed}
    return any(_tells(word) for word in written)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W\d_一-鿿]+", narrow(text))


def _tells(word: str) -> bool:
    plain = word.casefold()
    stem = plain[:-1] if len(plain) > 3 and plain.endswith("s") and not plain.endswith("ss") else plain
    is_name = word[0].isupper() and (plain not in _UNNAMED or (len(word) > 1 and word.isupper()))
    return is_name or plain in _OPPOSITES or bool({plain, stem} & FINANCE_WORDS)


def _han_differs(one: str, other: str) -> bool:
    first, second = ("".join(re.findall(_HAN, text)) for text in (one, other))
    for kind, start, end, other_start, other_end in SequenceMatcher(None, first, second, False).get_opcodes():
        if kind == "equal":
            continue
        for piece in (first[start:end], second[other_start:other_end]):
            rest = [char for char in piece if char not in _HARMLESS_HAN]
            if len(rest) > 1 or any(char in _TELLING_HAN for char in rest):
                return True
    return False
