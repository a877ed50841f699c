"""What a company holds and how it accounts for things: sentences of the business section and the notes as questions.

"As of September 28, 2024, Acme had approximately 164,000 employees" asks how many; "Acme recognizes revenue when …"
asks when or how; "Inventories are stated at …" asks how they are stated.
"""

import re
from collections.abc import Iterator

from selfqa.english_words import Lexicon
from selfqa.entities import Filing
from selfqa.pairs import Pair, possessive, verb
from selfqa.prose import Stretch, prose_pair, small_first, told

_WHEN = r"(?P<when>(?:As of|At) (?:the end of )?(?:[A-Z][a-z]+ \d{1,2}, (?:19|20)\d\d|fiscal(?: year)? (?:19|20)\d\d))"
_HAD = r",? (?:had|owned|leased|employed|held)"
_COUNT = re.compile(
    rf"^{_WHEN}, (?P<who>.+?)(?P<had>{_HAD}) (?:a total of |approximately |about |over |more than )?"
    r"(?P<number>\d[\d,]*(?:\.\d+)?(?: (?:million|billion))?) (?P<noun>[a-z][^.,;$%]{3,80}?)(?P<tail>[.,;].*)$"
)
_MONEY = re.compile(
    rf"^{_WHEN}, (?P<who>.+?)(?P<had>{_HAD}) (?:a total of |approximately |about )?"
    r"(?P<amount>\$\d[\d,.]*\d(?: (?:thousand|million|billion))?) (?:of|in) (?P<noun>[a-z][^.,;$%]{3,80}?)"
    r"(?P<tail>[.,;].*)$"
)
_OF_MONEY = re.compile(
    rf"^{_WHEN}, (?P<who>.+?) had (?:an? )?(?P<noun>[a-z][^.,;$%]{{3,80}}?) of (?:approximately |about )?"
    r"(?P<amount>\$\d[\d,.]*\d(?: (?:thousand|million|billion))?)(?P<tail>[.,;].*)$"
)
_HAVE = {"had": "have", "owned": "own", "leased": "lease", "employed": "employ", "held": "hold"}
_VERBS = {
    "records": "record",
    "recognizes": "recognize",
    "measures": "measure",
    "accounts for": "account for",
    "classifies": "classify",
    "amortizes": "amortize",
    "depreciates": "depreciate",
    "estimates": "estimate",
    "computes": "compute",
    "capitalizes": "capitalize",
    "determines": "determine",
    "values": "value",
    "reviews": "review",
    "tests": "test",
    "translates": "translate",
    "allocates": "allocate",
}
_DOES = re.compile(
    rf"^(?P<who>.+?) (?:generally |typically |primarily |also )?(?P<verb>{'|'.join(_VERBS)}) "
    r"(?P<what>[a-z][^.,;:]{3,90}?)"
    r"(?P<how> (?:on an?|at|using|based on|over|by|net of|under) .+| (?P<when>when|upon|once|in the period) .+| as .+)$"
)
_IS_DONE = re.compile(
    r"^(?P<what>[A-Z][^.,;:]{3,90}?) (?P<be>is|are) (?:generally |typically |initially |also )?(?P<done>stated|recorded"
    r"|measured|computed|carried|recognized|amortized|depreciated|valued|classified|expensed|accounted for|reported"
    r"|determined|calculated|estimated)(?P<how> (?:on an?|at|using|based on|over|by|net of|under|in accordance with) .+"
    r"| (?P<when>when|upon|as incurred|once) ?.*)$"
)
_NOT_A_THING = re.compile(
    r"\b(?:is|are|was|were|has|have|will|may|can|could|that|which|who|if|when|not|it|its|they|because)\b", re.IGNORECASE
)


def policy_pairs(stretch: Stretch, filing: Filing, lexicon: Lexicon, limit: int) -> Iterator[Pair]:
    """Yield a pair for each sentence of an English stretch that states a holding or a policy."""
    for number, sentence in enumerate(stretch.sentences):
        said = told(sentence, filing, longest=55)
        if said is None:
            continue
        made = _holding(said.text, filing) or _policy(said.text, filing, lexicon)
        if made is not None:
            question, topic, rule = made
            yield prose_pair(question, said.text, "fact", rule, topic, stretch, [number], limit)


_OPEN = re.compile(r"^(?:fair value|costs?|expenses?|assets|liabilities)$| of (?:the|an?|these) ")
"""What leaves open whose value or which costs are meant."""
Made = tuple[str, str, str]
"""Question, topic, rule."""


def _holding(text: str, filing: Filing) -> Made | None:
    for pattern, asked in ((_COUNT, "How many"), (_MONEY, "How much"), (_OF_MONEY, "")):
        found = pattern.match(text)
        if found is None:
            continue
        noun, who, when = found["noun"].strip(), found["who"], found["when"][:1].lower() + found["when"][1:]
        if re.match(r", [\w ,]+ and ", found["tail"]) and pattern is not _OF_MONEY:
            return None  # the noun goes on: "cash, cash equivalents and marketable securities"
        if who != filing.short or _NOT_A_THING.search(noun) or re.search(r"\d", noun):
            return None
        if pattern is _OF_MONEY:
            return f"How large {verb(noun)} {possessive(who)} {noun} {when}?", noun, "holding"
        noun, outstanding = re.subn(r" outstanding$", "", noun)
        left = " outstanding" if outstanding else ""
        if asked == "How much" and verb(noun) == "were":
            asked = "What amount of"
        return f"{asked} {noun} did {who} {_HAVE[found['had'].strip(' ,')]}{left} {when}?", noun, "holding"
    return None


def _policy(text: str, filing: Filing, lexicon: Lexicon) -> Made | None:
    found = _DOES.match(text)
    if found and found["who"] == filing.short and not _NOT_A_THING.search(found["what"]):
        asked = "When" if found["when"] else "How"
        return f"{asked} does {filing.short} {_VERBS[found['verb']]} {found['what']}?", found["what"], "policy"
    found = _IS_DONE.match(text)
    if found is None or _NOT_A_THING.search(found["what"]) or len(found["what"].split()) > 9:
        return None
    what = small_first(found["what"], lexicon)
    if what.startswith(("amount", "adjustment", "the ", "all ", "any ", "each ", "other ")) or _OPEN.search(what):
        return None
    asked = "When" if found["when"] else "How"
    question = f"{asked} {found['be']} {what} {found['done']}?"
    if filing.short in question:
        return question, what, "policy"
    owner = f"{asked} {found['be']} {possessive(filing.short)} {what} {found['done']}?"
    return owner, what, "policy"
