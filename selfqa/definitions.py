"""Pairs that are not about one figure: what a term means, who holds an office, what a total is made of."""

import re
from collections.abc import Iterator, Sequence
from functools import partial

from finlm.figures import narrow
from selfqa.blocks import Block, Source
from selfqa.entities import Filing
from selfqa.facts import Dropped
from selfqa.pairs import Pair
from selfqa.tables import Table

_COMPANY_FACTS = {
    "公司的法定代表人": ("的法定代表人是谁", "的法定代表人是{}"),
    "法定代表人": ("的法定代表人是谁", "的法定代表人是{}"),
    "注册地址": ("的注册地址在哪里", "的注册地址是{}"),
    "办公地址": ("的办公地址在哪里", "的办公地址是{}"),
    "会计师事务所名称": ("聘请的会计师事务所是哪一家", "聘请的会计师事务所是{}"),
    "股票代码": ("的股票代码是多少", "的股票代码是{}"),
    "公司国际互联网网址": ("的公司网址是什么", "的公司网址是{}"),
    "公司的外文名称": ("的外文名称是什么", "的外文名称是{}"),
    "公司的中文名称": ("的中文全称是什么", "的中文全称是{}"),
    "注册地址的邮政编码": ("注册地址的邮政编码是多少", "注册地址的邮政编码是{}"),
    "公司选定的信息披露媒体的名称": ("选定的信息披露媒体有哪些", "选定的信息披露媒体是{}"),
    "公司年度报告备置地点": ("的年度报告备置于哪里", "的年度报告备置于{}"),
    "会计师事务所办公地址": ("聘请的会计师事务所的办公地址在哪里", "聘请的会计师事务所的办公地址是{}"),
    "签字会计师姓名": ("年度审计的签字会计师是谁", "年度审计的签字会计师是{}"),
    "境内会计师事务所审计服务的连续年限": (
        "的会计师事务所已连续提供审计服务多少年",
        "的会计师事务所已连续提供审计服务{}年",
    ),
    "境内会计师事务所报酬(万元)": ("支付给会计师事务所的报酬是多少", "支付给会计师事务所的报酬是{}万元"),
}
"""Label of a company table -> how its question ends, how its answer goes on; both after the company's name."""

_PLURALS = {
    "segment": "segments",
    "category": "categories",
    "market": "markets",
    "type": "types",
    "product": "products",
}
_PLURALS |= {"geography": "geographic areas", "region": "regions", "country": "countries", "mine": "mines"}
MAX_DEFINITION = 90
"""Characters of the longest definition worth a one-sentence answer."""


def definition_pairs(source: Source, filing: Filing, tables: Sequence[Table]) -> Iterator[Pair | Dropped]:
    """Yield the pairs of a document's glossary, company table, breakdowns and list of subsidiaries."""
    if filing.language == "zh":
        for block in source.blocks:
            if block.kind == "table":
                yield from _glossary(block, filing)
                yield from _company_table(block, filing)
        return
    for table in tables:
        yield from _breakdown(table, filing)
    yield from _subsidiaries(source, filing)


def _glossary(block: Block, filing: Filing) -> Iterator[Pair]:
    entries = [row for row in block.rows if len(row.cells) == 3 and row.cells[1].text.strip() == "指"]
    for position, row in enumerate(entries):
        term, _, meaning = (cell.text.strip() for cell in row.cells)
        if (
            len(meaning) > MAX_DEFINITION
            or term in {"释义项"}
            or re.match(r"[一二三四五六]、", term)
            or term == meaning
        ):
            continue
        near = entries[max(0, position - 1) : position + 2]
        passage = "\n".join(f"{row.cells[0].text}：{row.cells[2].text}" for row in near)
        yield Pair(
            question=f"在{filing.short}{filing.fiscal_year}年年度报告中，“{term}”指什么？",
            answer=f"“{term}”指{meaning.rstrip('。')}。",
            kind="definition",
            start=row.start,
            end=row.end,
            rule="glossary",
            topic=term,
            place="glossary",
            passage=partial(str, passage),
        )


def _company_table(block: Block, filing: Filing) -> Iterator[Pair]:
    rows = [row for row in block.rows if len(row.cells) in (2, 4)]
    for position, row in enumerate(rows):
        for label, value in zip(row.cells[::2], row.cells[1::2], strict=False):
            wording = _COMPANY_FACTS.get(narrow(label.text).replace("(如有)", "").strip())
            if wording is None or len(value.text) > 40 or not value.text.strip("/-— "):
                continue
            near = rows[max(0, position - 2) : position + 3]
            told = [
                f"{a.text}：{b.text}"
                for other in near
                for a, b in zip(other.cells[::2], other.cells[1::2], strict=False)
            ]
            yield Pair(
                question=f"{filing.short}{wording[0]}？",
                answer=f"{filing.short}{wording[1].format(value.text.strip())}。",
                kind="fact",
                start=row.start,
                end=row.end,
                rule="company-table",
                topic=label.text,
                place="company table",
                passage=partial(str, "\n".join(told)),
            )


def _breakdown(table: Table, filing: Filing) -> Iterator[Pair]:
    """ "Net revenue by end market" names its end markets."""
    found = re.fullmatch(
        r"((?:[A-Za-z]+ ){0,3}[A-Za-z]+) by ((?:end |reportable |operating |product )?(?:segment|category|market|type"
        r"|product|geography|region|country|mine))s?",
        table.title,
        re.IGNORECASE,
    )
    labels = [line.label.strip("* ") for line in table.lines if not re.match(r"\W*total|\W*subtotal", line.label, re.I)]
    if (
        found is None
        or not 3 <= len(labels) <= 7
        or any(re.search(r"\d|\bper\b|average|\bcost\b", label, re.I) for label in labels)
    ):
        return
    if any(line.parent for line in table.lines) or len(set(labels)) < len(labels):
        return
    measure, kind = found[1].lower(), found[2].lower()
    plural = re.sub(r"(\w+)$", lambda match: _PLURALS.get(match[1], match[1] + "s"), kind)
    listed = ", ".join(labels[:-1]) + f" and {labels[-1]}"
    lines = [line for line in table.lines if line.label.strip("* ") in labels]
    amounts = "\n".join(f"{line.label.strip('* ')} | {line.values[0].cell.text}" for line in table.lines)
    yield Pair(
        question=f"Into which {plural} does {filing.short} break down its {measure}?",
        answer=f"{filing.short} breaks down its {measure} into {listed}.",
        kind="list",
        start=lines[0].start,
        end=lines[-1].end,
        rule="breakdown",
        topic=measure,
        place=f"table {table.number}",
        passage=partial(str, f"{filing.short}\n{table.title}\n{amounts}"),
    )


_ARTICLES = dict.fromkeys(
    ("Bahamas", "Netherlands", "United Kingdom", "United Arab Emirates", "Philippines", "Cayman Islands"), "the "
)
_SUBSIDIARY = re.compile(
    r"^(?P<name>[A-Z][^\n|]{4,80}?)(?:\s\(\d\))*[\s|]+(?P<share>\d{1,3}(?:\.\d+)?)[\s"
    r"|]+(?P<place>[A-Z][A-Za-z./ -]{2,40})$",
    re.MULTILINE,
)


def _subsidiaries(source: Source, filing: Filing) -> Iterator[Pair]:
    """Exhibit 21: name, percentage of voting securities owned, place of organisation."""
    head = source.text[:3000]
    if not re.search(r"subsidiaries of (?:the )?(?:registrant|company)", head, re.I) or "Percentage" not in head:
        return
    date = re.search(r"\bat ([A-Z][a-z]+ \d{1,2}, (?:19|20)\d\d)", head)
    when = f" at {date[1]}" if date else ""
    rows = list(_SUBSIDIARY.finditer(source.text))
    for position, row in enumerate(rows):
        near = rows[max(0, position - 2) : position + 3]
        passage = "\n".join(
            [f"Subsidiaries of {filing.short}{when}: voting securities owned, place of organization"]
            + [f"{other['name']} | {other['share']}% | {other['place']}" for other in near]
        )
        pair_about = partial(
            Pair,
            start=row.start(),
            end=row.end(),
            rule="subsidiaries",
            place="subsidiaries",
            topic=row["name"],
            passage=partial(str, passage),
        )
        yield pair_about(
            question=f"What percentage of the voting securities of {row['name']} did {filing.short} own{when}?",
            answer=f"{filing.short} owned {row['share']}% of the voting securities of {row['name']}{when}.",
            kind="figure",
        )
        yield pair_about(
            question=f"Where is {row['name']}, listed among the subsidiaries of {filing.short}, organized?",
            answer=f"{row['name']} is organized in {_ARTICLES.get(row['place'], '')}{row['place']}.",
            kind="fact",
            rank=1,
        )
