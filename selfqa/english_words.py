"""English words of filings: which are measures, balances or flows, and how a label is written inside a sentence."""

import re
from collections import Counter

MEASURE = re.compile(
    r"\b(?:revenues?|sales|income|loss(?:es)?|profits?|earnings|margins?|expenses?|costs?|(?<!-)assets?|liabilit\w+"
    r"|equity|cash"
    r"|debt|deposits?|loans?|provision|tax(?:es)?|dividends?|inventor\w+|receivables?|payables?|goodwill|depreciation"
    r"|amortization|ratio|rates?|yield|backlog|securities|investments?|borrowings?|obligations?|reserves?|charges?"
    r"|fees"
    r"|compensation|purchases|repurchases|proceeds|payments?|production|shipments?|capacity|customers|employees"
    r"|benefits?(?! plan)"
    r"|interest|property|premises|equipment|intangibles?|ebitda|contributions?|impairments?|assessments?"
    r"|expenditures?"
    r"|surplus|allowance|charge-offs|price|leases?|tax credits?|credit (?:line|facility)|advertising|financing|factor"
    r"|miles|volumes?|shares|premiums?|inventory|occupancy|utilization|common stock|notes|royalties|gains?)\b",
    re.IGNORECASE,
)
BALANCE = re.compile(
    r"\b(?:assets|liabilit\w+|equity|receivables?|payables?|inventor\w+|goodwill|cash and|cash equivalents|securities"
    r"|borrowings|retained|surplus|premises|property|debt|deposits|loans|intangibles?|notes|common stock|obligations"
    r"|accrued|backlog|valuation allowance)\b",
    re.IGNORECASE,
)
FLOW = re.compile(
    r"\b(?:income|expenses?|loss(?:es)?|gains?|provision|proceeds|purchases|payments?|sales|revenues?|charges?"
    r"|returns?"
    r"|depreciation|amortization|interest|impairments?|averages?|costs?|margins?|fees|additions|accretion"
    r"|allowance for"
    r"|issuance|repurchases?)\b",
    re.IGNORECASE,
)
EITHER = (
    "income|earnings|profit|gains?|benefit|expenses?|loss|losses|costs?|credits?|charges?|appreciation|depreciation"
)
GENERIC = re.compile(
    r"^(?:other|others|basic|diluted|total|net|subtotal|current|deferred|foreign|domestic|federal|state|thereafter"
    r"|adjustments?|all other|costs?|financing|income|loss|expenses?|provision|purchases|payments|proceeds|benefits?"
    r"|contributions|investments?|leases|shares|rates?|equity)\W*$",
    re.I,
)
REFUSED = re.compile(
    r"^(?:%|percent(?:age)? of|as a percent|balances?\b|beginning|ending|change|increase|decrease|\(increase"
    r"|effect of"
    r"|less\b|adjustment|due in|maturit|\d|weighted[- ]average (?:price|grant|exercise|fair)"
    r"|total reportable segments|held (?:for|to)|designated|amortized cost"
    r"|net change)"
    r"|during the (?:period|year)"
    r"|\b(?:beginning|end) of (?:the )?(?:period|year)|ending balances?|beginning balances?|percent of",
    re.IGNORECASE,
)
CASH_FLOW = re.compile(
    r"^(?:net cash|cash (?:generated|used|provided)|net income|depreciation|stock-based|share-based|purchases? of"
    r"|payments? (?:for|of)|proceeds|capital exp"
    r"|additions to|(?:cash )?dividends|(?:common stock )?repurchase|acquisition)",
    re.IGNORECASE,
)
UNIT_NOTE = re.compile(
    r"\b(?:(?P<noun>[A-Za-z]+)\s+)?in\s+(?P<scale>thousands|millions|billions)\b(?:\s+of\s+(?P<of>(?:barrels|pounds"
    r"|tons|tonnes|shares|units|dollars|U\.S\. dollars|\w+)))?"
    r"|(?P<scale2>thousands|millions|billions)\s+of\s+(?P<of2>[A-Za-z.]+(?:\s(?:daily|dollars))?)",
    re.IGNORECASE,
)
PER = re.compile(
    r"\bper\s+(?:\w+\s+){0,3}(?:share|pound|barrel|gallon|ounce|ton|unit|day|customer|mile|room)\b|\bper (?:basic"
    r"|diluted)\b",
    re.IGNORECASE,
)


_COMMON = frozenset(
    re.findall(
        r"\w+",
        """accounts accretion accrued accumulated acquired acquisition additional adjusted administrative after air
        aircraft amount amounts and at available balance basic before buildings business by capital
        capitalized card chemicals client coal commercial commissions common comprehensive consolidated
        construction consumer continuing contract corporate coverage customer data deferred development
        diluted discontinued distribution dividends due effective efficiency employee equipment excise
        exploration fair favorable federal finance financial finished food for foreign franchise from fuel
        gathering general goods gross growth held home household in industrial insurance intangible interest
        inventories labor land landing legal less licenses long loyalty maintenance management manufacturing
        market marketable marketing materials metals mortgage multi natural net noncontrolling noncurrent
        noninterest nonperforming occupancy of office on operating or ordinary other paid pension personnel
        pre preferred premises prepaid product professional purchased raw real receivable reclamation
        regulatory related rental research residential restructuring retained revolving right road salaries
        selling senior service services shipping short software spare specific state stock stockholders
        stores subscription subsidiaries technology term total trade transportation treasury unearned
        unsecured utility vessel voyage wages wealth weighted with work""",
    )
)
"""First words of labels that are never names, for documents too short to show it themselves."""


class Lexicon:
    """Which words a document writes as names: labels follow its own use."""

    def __init__(self, text: str) -> None:
        self.common = Counter(re.findall(r"(?<=[a-z,] )[a-z][a-z’'-]+", text))
        self.small = set(self.common)
        names = Counter(re.findall(r"(?<=[a-z] )[A-Z][\w’'-]*(?: [A-Z][\w’'-]*)*", text))
        self.names = {name for name in names if not MEASURE.search(name)}
        self.pairs = {name for name, count in names.items() if " " in name and count > 1 and not MEASURE.search(name)}

        self.counts = names
        self.parts = {word for name in names for word in name.split(" ")}

    def is_name(self, word: str) -> bool:
        """True if the document writes a word large inside its sentences about as often as small."""
        common = self.common[word.lower()]
        return self.counts[word] * 2 > common or (common == 0 and word in self.parts)

    def in_sentence(self, label: str) -> str:
        """Write a label as it would stand inside a sentence: "Total Net Sales" -> "total net sales"."""
        if label in self.names:
            return label
        name = next((name for name in sorted(self.pairs, key=len, reverse=True) if label.startswith(name + " ")), "")
        rest = label[len(name) :].strip()
        words = rest.split(" ")
        is_loud = label == label.upper() and any(len(word) > 3 for word in words)
        titled = is_loud or bool(name) or sum(word[:1].isupper() for word in words if len(word) > 3) > 1
        written = []
        for position, word in enumerate(words):
            bare = word.strip(",.()").lower()
            is_common = bool(bare in self.small or MEASURE.fullmatch(bare) or set(bare.split("-")) & _COMMON)
            is_name = not is_loud and word[1:] != word[1:].lower() and "-" not in word
            written.append(word.lower() if (position == 0 or titled) and is_common and not is_name else word)
        return f"{name} {' '.join(written)}".strip()
