"""Settings of Self-QA, and which of them may change between two starts of a run."""

from dataclasses import dataclass, field
from typing import Literal

from finlm import config
from finlm.errors import UserError
from finlm.records import Operation
from selfqa.exports import Format
from selfqa.plan import TYPES, Plan, make_plan
from selfqa.reading import MAX_MEGABYTES

FREE = (
    *("cache", "processes", "replies", "endpoint", "parallel", "timeout_seconds", "deadline_seconds", "batch"),
    *("seconds_per_call", "prompt_price", "reply_price"),
)
"""Settings that decide how long a run takes, not what it makes."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Settings of Self-QA."""

    corpus: str
    """Folder of filings, any depth: .html, .pdf, .docx, .xlsx, .csv, .txt, .md; rows of texts or triples: .jsonl,
    .json, .parquet."""
    output: str = "{runs}/selfqa"
    """Folder to write into."""
    runs: str = config.default_runs()
    """Run root that `{runs}` stands for."""
    backend: Literal["extractive", "openai", "transformers"] = "extractive"
    """`extractive`: templates over facts, tables and sentences, no model. `openai`: an OpenAI-compatible endpoint.
    `transformers`: a model of this machine, also one that this project trained."""
    endpoint: str = "http://127.0.0.1:8000/v1"
    """Where the endpoint answers; its key is read from OPENAI_API_KEY."""
    model: str = ""
    """What asks and answers: the endpoint's name of it; for `transformers` a run, a model folder or `embedded`."""
    more_models: tuple[str, ...] = ()
    """Models that answer every question too, each a name as in `model`, or `name@URL`; the best sound answer stays."""
    scorer: str = ""
    """What chooses among several answers: a reward model's folder, or the URL of `finlm reward serve`. Without it the
    first model's sound answer stays."""
    merge: bool = False
    """Have `model` write one answer out of several sound ones; it must be as sound."""
    round_trip: bool = False
    """Answer every question again from its quotes alone; answers that differ go."""
    judge: str = ""
    """A model that grades every answer, a name as in `more_models`; empty: none does."""
    judge_grade: int = 4
    """An answer that the judge gives less, of 1 to 5, goes."""
    questions: int = 10
    """Questions that one call asks about a passage."""
    background_characters: int = 2400
    """Characters of a passage that the endpoint is asked about."""
    max_passages: int = 0
    """Passages of a document that the endpoint is asked about, spread over the document; 0 for all."""
    temperature: float = 0.7
    """Of the endpoint's answers."""
    max_tokens: int = 1024
    """Most tokens of one reply."""
    parallel: int = 64
    """Most calls to an endpoint side by side; fewer while it says that it is busy."""
    batch: int = 16
    """Replies that a model of this machine writes at once."""
    seed: int = 0
    """Of a model of this machine."""
    replies: str = "{runs}/selfqa-replies.sqlite"
    """File that remembers every reply, for this run and others: nothing is paid for twice."""
    limit: int = 0
    """Most passages in all that a model is asked about, spread over the documents; 0 for all."""
    preview: int = 0
    """Make that many questions (a model: ask about that many passages), print them, and write no run."""
    estimate: bool = False
    """Print what a run with a model would come to in calls, tokens, time and cost, and ask nothing."""
    seconds_per_call: float = 0.0
    """For the estimate, seconds; 0: as the replies so far took."""
    prompt_price: float = 0.0
    """For the estimate, of a million tokens of prompts."""
    reply_price: float = 0.0
    """For the estimate, of a million tokens of replies."""
    timeout_seconds: float = 120.0
    """For one call."""
    deadline_seconds: float = 600.0
    """How long a call is tried again before the run stops, to be resumed by the same command."""
    max_pairs: int = 400
    """Most questions kept per document, spread over metrics and tables."""
    types: dict[str, float] = field(default_factory=lambda: dict(TYPES))
    """Share of each type: fact, figure, change, cause, definition, comparison, list, risk, summary, yes-no,
    unanswerable. A type not named is not asked."""
    difficulties: dict[str, float] = field(default_factory=dict)
    """Share of easy, medium and hard questions; without them as the material gives."""
    sections: dict[str, float] = field(default_factory=dict)
    """Share of business, risk, discussion, statements, notes and other; without them as the material gives."""
    quotas: dict[str, float] = field(default_factory=dict)
    """Joint shares, `type/difficulty/section` of all questions, `*` for any: {cause/*/discussion: 0.1,
    figure/easy/statements: 0.2}. A type named here is planned by these alone; the others share the rest by `types`."""
    computations: tuple[Operation, ...] = ("difference", "growth", "ratio", "sum")
    """What a figure of an answer may be computed by; a question whose answer needs another computation is not kept."""
    template_share: float = 0.3
    """Most of a document's questions that one template may make."""
    benchmarks: str = ""
    """Folder of benchmark files (.json, .jsonl, .csv, .txt, also packed): a question that shares ten words in a row, or
    twenty Chinese characters, with one of their texts goes."""
    across_filings: bool = True
    """Compare periods of a company that stand in different filings of it (backend `extractive`)."""
    forms: tuple[Literal["closed-book", "open-book"], ...] = ("closed-book", "open-book")
    """Which records a question becomes: the bare question, or a passage before it."""
    formats: tuple[Format, ...] = ("messages",)
    """Files of records besides `instructions.jsonl` (messages): alpaca, sharegpt, parquet; text for passages as
    running text with their questions behind them."""
    passage_characters: int = 450
    """Most characters of an open-book passage."""
    cache: str = "{runs}/parsed"
    """Folder that parsed files are kept in, by content, for this run and others; it may be deleted at any time."""
    max_file_megabytes: float = MAX_MEGABYTES
    """A file larger than this, as it lies or unpacked, is named and left out."""
    processes: int = 0
    """How many read files side by side; 0 for as many as there are cores."""
    overwrite: bool = False
    """Delete what lies in `output` and begin afresh."""

    def __post_init__(self) -> None:
        if self.max_pairs < 1:
            raise UserError(f"max_pairs is {self.max_pairs}; it must be 1 or more.")
        make_plan(self.types, self.difficulties, self.sections, self.template_share, self.quotas)
        if self.passage_characters < 100:
            raise UserError(f"passage_characters is {self.passage_characters}; a passage needs 100 or more.")
        if not self.forms:
            raise UserError("forms is empty; name closed-book, open-book or both.")
        if self.backend == "openai" and not self.model:
            raise UserError("backend openai needs --model: the name that the endpoint serves the model under.")
        if self.backend == "transformers" and not self.model:
            raise UserError("backend transformers needs --model: a run, a model folder, or embedded.")
        if self.backend == "extractive" and (self.estimate or self.limit):
            raise UserError("estimate and limit are for a model's calls; backend extractive makes none (max_pairs).")
        if self.scorer and not self.more_models:
            raise UserError("scorer chooses among several models' answers; name others with --more_models.")
        if self.merge and not self.more_models:
            raise UserError("merge writes one answer out of several; name other models with --more_models.")
        if not 1 <= self.judge_grade <= 5:
            raise UserError(f"judge_grade is {self.judge_grade}; grades go from 1 to 5.")
        if min(self.limit, self.preview, self.max_passages) < 0:
            raise UserError("limit, preview and max_passages must be 0 or more.")
        if self.max_file_megabytes <= 0 or self.processes < 0:
            told = f"max_file_megabytes is {self.max_file_megabytes:g} and processes {self.processes}"
            raise UserError(f"{told}; the first must be above 0, the second 0 or more.")
        if self.parallel < 1 or self.questions < 1:
            raise UserError(f"parallel is {self.parallel} and questions {self.questions}; both must be 1 or more.")


def plan_of(settings: Settings) -> Plan:
    """What a document's questions shall be like; a model's are of no template."""
    share = settings.template_share if settings.backend == "extractive" else 1.0
    return make_plan(settings.types, settings.difficulties, settings.sections, share, settings.quotas)
