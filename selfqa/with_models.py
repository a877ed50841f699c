"""What the settings say of models: which documents they are asked about, by whom, and what that would come to."""

from collections.abc import Sequence
from pathlib import Path

from rich.progress import Progress
from rich.table import Table

from selfqa import output
from selfqa.asked import Asked
from selfqa.asking import Found, Wish, ask_all, failures, limited, spread
from selfqa.background import Background
from selfqa.contamination import Contamination
from selfqa.documents import Read
from selfqa.estimate import Rates, estimate, table_of
from selfqa.hiring import Hiring, hire
from selfqa.pairs import Pair
from selfqa.replies import typical_seconds
from selfqa.settings import Settings, plan_of


def ask_models(
    documents: Sequence[Read],
    passages: Sequence[Sequence[Background]],
    settings: Settings,
    made: output.Made,
    asked: Asked,
    progress: Progress,
    known: Contamination | None,
) -> None:
    """Have models ask and answer about every document: pairs go to `asked`, what no code found grounded to `made`."""
    kinds = dict(plan_of(settings).types)
    wish = Wish(kinds, settings.questions, settings.passage_characters, 2 * at_once(settings), known)
    asked_about = chosen_passages(documents, passages, settings, made)
    crew = hire(hiring(settings))

    def take(number: int, found: Found) -> None:
        made.counts["questions"] += len(found)
        for item in found:
            if isinstance(item, Pair):
                asked.add(documents[number], item)
            else:
                made.remove(item.rule, item.reason, item.text)

    ask_all(list(zip(documents, asked_about, strict=True)), wish, crew, progress, take)
    made.counts["calls"], made.counts["calls_remembered"] = (
        crew.replies.counts["asked"],
        crew.replies.counts["remembered"],
    )
    made.failures = failures(crew)


def chosen_passages(
    documents: Sequence[Read], passages: Sequence[Sequence[Background]], settings: Settings, made: output.Made
) -> list[list[Background]]:
    """Return the passages that models are asked about, by document; one without a company gives none."""
    found: list[list[Background]] = []
    for read, its in zip(documents, passages, strict=True):
        if not read.filing.company:
            made.remove("no-entity", "no company could be found in the document", read.record.source)
        found.append(spread(its, settings.max_passages) if read.filing.company else [])
    return limited(found, settings.preview or settings.limit)


def hiring(settings: Settings) -> Hiring:
    """What the settings say of models."""
    fields = ["backend", "model", "more_models", "judge", "judge_grade", "round_trip", "scorer", "merge", "endpoint"]
    fields += ["temperature", "max_tokens", "parallel", "timeout_seconds", "deadline_seconds", "batch", "seed", "runs"]
    return Hiring(**{name: getattr(settings, name) for name in fields}, replies=Path(settings.replies))


def at_once(settings: Settings) -> int:
    """How many calls may be under way."""
    return settings.parallel if settings.backend == "openai" else settings.batch


def estimated(documents: Sequence[Read], passages: Sequence[Sequence[Background]], settings: Settings) -> Table:
    """Return what a run would come to."""
    made = output.Made()
    chosen = chosen_passages(documents, passages, settings, made)
    texts = (
        read.record.text[piece.start : piece.end] for read, its in zip(documents, chosen, strict=True) for piece in its
    )
    models = 1 + len(settings.more_models)
    calls = models + settings.merge + settings.round_trip + bool(settings.judge)
    seconds = settings.seconds_per_call or typical_seconds(Path(settings.replies), settings.model)
    rates = Rates(seconds, at_once(settings), settings.prompt_price, settings.reply_price)
    return table_of(estimate(texts, settings.questions, calls, settings.max_tokens), rates, sum(map(len, chosen)))
