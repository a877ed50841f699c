"""From settings to a crew: which models ask, answer, check and judge, and where they run."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfqa.calls import Backend
from selfqa.crew import Crew
from selfqa.replies import Replies

NAMED_AT = "@"
"""Between a model's name and its endpoint: `qwen@http://10.0.0.7:8000/v1`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Hiring:
    """What the settings say of models.

    Example:
        Hiring(backend="openai", model="qwen", endpoint="http://127.0.0.1:8000/v1", …)
    """

    backend: str
    """`openai` or `transformers`."""
    model: str
    more_models: Sequence[str]
    """They answer too; each `name` or `name@URL`."""
    judge: str
    """A name as in `more_models`; empty: nobody judges."""
    judge_grade: int
    round_trip: bool
    scorer: str
    merge: bool
    endpoint: str
    temperature: float
    max_tokens: int
    parallel: int
    timeout_seconds: float
    deadline_seconds: float
    batch: int
    seed: int
    runs: str
    replies: Path


def hire(wanted: Hiring) -> Crew:
    """Return the crew; models are loaded, endpoints not yet asked.

    Raises:
        UserError: An endpoint needs a key, or a model is not there.
    """
    made: dict[str, Backend] = {}

    def backend(name: str) -> Backend:
        if name not in made:
            made[name] = _endpoint(name, wanted) if wanted.backend == "openai" else _local(name, wanted)
        return made[name]

    first = backend(wanted.model)
    answerers = tuple(dict.fromkeys([first, *map(backend, wanted.more_models)]))
    scores = None
    if wanted.scorer:
        from selfqa.scores import scores_of  # brings torch where the scorer is a folder

        scores = scores_of(wanted.scorer)
    return Crew(
        replies=Replies(wanted.replies),
        asker=first,
        answerers=answerers,
        judge=backend(wanted.judge) if wanted.judge else None,
        least_grade=wanted.judge_grade,
        checker=answerers[-1] if wanted.round_trip else None,
        scores=scores,
        merges=wanted.merge,
    )


def _endpoint(name: str, wanted: Hiring) -> Backend:
    from selfqa.endpoint import Endpoint, Sampling  # the client takes a second to import

    model, _, url = name.partition(NAMED_AT)
    return Endpoint(
        Sampling(
            url=url or wanted.endpoint,
            model=model,
            temperature=wanted.temperature,
            max_tokens=wanted.max_tokens,
            parallel=wanted.parallel,
            timeout_seconds=wanted.timeout_seconds,
            deadline_seconds=wanted.deadline_seconds,
        )
    )


def _local(name: str, wanted: Hiring) -> Backend:
    from selfqa.local import Local, LocalSettings  # torch

    return Local(
        LocalSettings(
            model=name,
            runs=wanted.runs,
            temperature=wanted.temperature,
            max_tokens=wanted.max_tokens,
            batch=wanted.batch,
            seed=wanted.seed,
        )
    )
