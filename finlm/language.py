"""Which of the two languages a text is in. No torch: Self-QA's extractive part stands on this as well."""

import re

_HAN = re.compile(r"[\u4e00-\u9fff]+")
_LATIN = re.compile(r"[A-Za-z]+")
_SAMPLE = 200_000


def language_of(text: str) -> str:
    """`zh` where more than one letter in five is Chinese, else `en`; of a long text its first 200,000 characters."""
    sample = text[:_SAMPLE]
    if sample.isascii():
        return "en"
    han = sum(map(len, _HAN.findall(sample)))
    latin = sum(map(len, _LATIN.findall(sample)))
    return "zh" if han * 4 > latin else "en"
