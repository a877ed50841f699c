"""Whose figures an answer tells: the filing's company, and no other."""

import re

from finlm.figures import find_figures, narrow
from selfqa.entities import Filing
from selfqa.period_phrases import periods_said

_KIND = (
    r"Inc|Incorporated|Corp|Corporation|Company|Co|Ltd|Limited|PLC|plc|Bancorp|Group|Holdings?|LLC|L\.P|N\.V|S\.A|AG"
    r"|Electronics|Bank|Motors?|Energy|Technolog(?:y|ies)|Systems"
)
_NAME = r"[A-Z][\w&-]*(?:(?:,?\s+|\s+(?:of|and|&)\s+)[A-Z][\w&.-]*)*"
_OWNER = re.compile(rf"(?P<name>{_NAME})(?:\.?['’]s\b|s['’](?=\s))")
_COMPANY = re.compile(rf"\b(?P<name>{_NAME}),?\s(?:{_KIND})\b\.?")
_ZH_COMPANY = re.compile(r"[\u4e00-\u9fffA-Za-z（）()]{2,30}(?:有限公司|有限责任公司|股份公司|集团|银行|证券|保险)")
_ZH_KIND = re.compile(r"股份|有限|责任|公司|集团|银行|证券|保险|[（）()]")
_ZH_GENERIC = re.compile(
    r"^(?:母|子|本|该|控股|合营|联营|参股|上市|分|全资子|控股子|其他|关联|非银行|商业)?(?:公司|集团|银行)$"
)


def aliases(filing: Filing) -> set[str]:
    """Return the names that a filing's company goes by."""
    names = {filing.company, filing.short} - {""}
    if filing.language == "en":
        bare = re.sub(rf",?\s(?:{_KIND})\.?(?=$|\s)", "", filing.company).strip(" ,.")
        names |= {bare} if bare else set()
        names |= {"".join(word[0] for word in bare.split())} if len(bare.split()) > 2 else set()
    else:
        names.add(re.sub(r"股份有限公司|有限责任公司|有限公司|集团", "", filing.company))
    return names


def foreign_name(question: str, answer: str, filing: Filing, text: str) -> str:
    """Return a company that the answer tells of and that is not the filing's, or an empty string.

    A name that stands in the document is a part of the company, or at least a part of its story: it passes unless it
    owns the answer's first figure. `text` is the document's.
    """
    known = aliases(filing)
    if not known:
        return ""
    plain = narrow(answer)
    return _chinese(plain, known, text) if filing.language == "zh" else _english(plain, known, text)


def _english(answer: str, known: set[str], text: str) -> str:
    for pattern in (_OWNER, _COMPANY):
        for match in pattern.finditer(answer):
            name = match["name"] if pattern is _OWNER else match[0]
            if _is_known(name, known):
                continue
            bare = re.sub(r"^(?:In|As|At|For|During|The|Its|On)\s", "", name)
            if bare not in text and bare.rstrip(".") not in text:
                return bare
    return ""


def _is_known(name: str, known: set[str]) -> bool:
    words = set(re.findall(r"\w+", name.lower()))
    return any(words <= set(re.findall(r"\w+", alias.lower())) or alias in name for alias in known)


def _chinese(answer: str, known: set[str], text: str) -> str:
    for match in _ZH_COMPANY.finditer(answer):
        name = match[0]
        if any(alias in name or name in alias for alias in known) or _ZH_GENERIC.match(name) or name in text:
            continue
        tails = (name[at:] for at in range(1, len(name) - 2) if name[at:] in text)
        # words before a name of the document ran into it: "主要系华东电力有限公司"
        if not any(len(_ZH_KIND.sub("", tail)) > 1 for tail in tails):
            return name
    if any(alias in answer for alias in known):
        return ""
    subject = _subject(answer)
    return subject if subject and subject not in text and not _starts_known(subject, text) else ""


def _subject(answer: str) -> str:
    """The run of characters that an answer begins with, before or right after its first period: 宁德时代2019年…"""
    bare = answer
    for when in reversed(periods_said(answer, "zh")):
        bare = bare[: when.start] + "\0" + bare[when.end :]
    for figure in reversed(find_figures(answer)):
        bare = bare[: figure.start] + "\0" + bare[figure.end :] if len(bare) == len(answer) else bare
    bare = re.sub(r"^(?:截至|截止|在|于)?\0[年末初度日]*[，,]?", "", bare)
    found = re.match(r"[\u4e00-\u9fffA-Za-z]{2,30}?(?=的|\0|为)", bare)
    return found[0] if found else ""


def _starts_known(subject: str, text: str) -> bool:
    """Do the subject's first three characters stand in the document? A metric's do, another company's do not."""
    return subject[:3] in text
