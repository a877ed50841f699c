"""A knowledge graph to text: each triple is a sentence, each head a passage under its name.

"The <relation> of <head> is <tail>." is the recipe's form for knowledge graphs (XuanYuan-6B report), in Chinese
<head>的<relation>是<tail>。 Nothing is added to what the triple says.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from finlm.language import language_of
from selfqa.blocks import Source
from selfqa.formats.builder import Builder

_HEADS = {"head", "subject", "head_entity", "头实体", "主语", "主体"}
_RELATIONS = {"relation", "predicate", "property", "关系", "谓语", "属性"}
_TAILS = {"tail", "object", "tail_entity", "尾实体", "宾语", "客体", "属性值"}


class Triple(NamedTuple):
    """An edge of a knowledge graph.

    Example:
        Triple("Microsoft", "founder", "Bill Gates")
    """

    head: str
    relation: str
    tail: str


def triple_columns(names: Sequence[str]) -> tuple[int, int, int] | None:
    """Return where head, relation and tail stand among a table's or row's names, None if one is missing."""
    plain = [name.strip().lower() for name in names]
    found = [next((at for at, name in enumerate(plain) if name in known), -1) for known in (_HEADS, _RELATIONS, _TAILS)]
    return None if -1 in found else (found[0], found[1], found[2])


def read_triples(triples: Iterable[Triple]) -> Source:
    """Write the sentences, one passage per head, heads in the order of their first triple."""
    by_head: dict[str, list[Triple]] = defaultdict(list)
    for triple in dict.fromkeys(triples):
        by_head[triple.head].append(triple)
    builder = Builder()
    for head, told in by_head.items():
        is_chinese = language_of("".join(head + relation for head, relation, _ in told)) == "zh"
        builder.heading(head)
        builder.paragraph(("" if is_chinese else " ").join(sentence(triple, is_chinese=is_chinese) for triple in told))
    return builder.source()


def sentence(triple: Triple, *, is_chinese: bool) -> str:
    """Tell one triple."""
    head, relation, tail = (part.strip().rstrip("。") if is_chinese else part.strip() for part in triple)
    if is_chinese:
        return f"{head}的{relation}是{tail}。"
    return f"The {_words(relation)} of {head} is {tail}{'' if tail.endswith('.') else '.'}"


def _words(relation: str) -> str:
    """`dateOfBirth`, `date_of_birth` and `schema:dateOfBirth` are "date of birth"."""
    bare = re.split(r"[:/#]", relation)[-1] or relation
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", bare.replace("_", " "))
    return " ".join(word if word.isupper() else word.lower() for word in apart.split())
