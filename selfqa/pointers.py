"""Words that point at something the asker does not have: an article, a table above, a company without its name."""

import re

_DEMONSTRATIVE = re.compile(
    r"\b(?:this|these|those|aforementioned|above-mentioned|aforesaid|said (?:company|report|period))\b"
    r"|(?<![应活])该(?![死当])|(?<![因彼如由据为])此(?![外后前次起])|这|上述|下述|前述"
    r"|本(?:报告期|报告|年报|期|年度|公司|集团|行(?!业))",
    re.IGNORECASE,
)
_NAMELESS = re.compile(
    r"\b(?:the|that|our) (?:company|corporation|registrant|firm|bank|group|issuer)\b|\b(?:we|our|us)\b"
    r"|(?:该|本|贵|我)(?:公司|集团|企业)|^公司|[，。；]公司(?!债|章程|法|治理)",
    re.IGNORECASE,
)
_ARTICLE = re.compile(
    r"\b(?:the|in the|according to the|based on the|from the) (?:article|passage|text|document|paragraph|excerpt"
    r"|context|snippet|section above|table above|above table|following table|background knowledge)\b"
    r"|\baccording to the (?:above|information|knowledge|table)\b|\bas (?:mentioned|stated|described) (?:above|in)\b"
    r"|\b(?:mentioned|described|listed|shown|discussed|stated|given|provided) (?:above|below|here)\b|\bas mentioned\b"
    r"|\bthe above\b|\b(?:provided|given) (?:text|information|context|passage|table|data)\b"
    r"|本文|文中|文章|上文|下文|原文|文本|段落|材料中|资料中|上表|下表|背景知识"
    r"|(?:根据|依据|按照|结合|基于).{0,6}(?:上述|以上|材料|文本|段落|资料|信息|内容|给出|提供)"
    r"|以上(?:内容|信息|材料|数据|表格)|如上|如下(?:所示|表)|所给|给定的",
    re.IGNORECASE,
)


def pointer_in(text: str, names: set[str]) -> str:
    """Return the words of a text that point outside it, or an empty string.

    Args:
        text: A question or an answer.
        names: What the company goes by: "the company" may stand for it in a text that names it.
    """
    for pattern in (_ARTICLE, _DEMONSTRATIVE):
        found = pattern.search(text)
        if found:
            return found[0]
    if not any(name in text for name in names):
        found = _NAMELESS.search(text)
        return found[0] if found else ""
    return ""
