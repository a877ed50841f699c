"""The nouns that cross files: frozen, valid from birth, each with an example.

A record's `id` is a hash of its content without its provenance, so duplicates are equal and a lineage can be walked.
It is computed at birth and written to the file for readers; an id found in a file is ignored, so an edited text is a
new record. Only the standard library is used here.
"""

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

Role = Literal["system", "user", "assistant"]
Category = Literal["general", "finance", "safety"]

_CANONICAL = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
MAKER_PREFIXES = ("person:", "model:", "rule:", "import:")


def content_id(*parts: object) -> str:
    """Sixteen hex digits of the SHA-256 of `parts`, written as canonical JSON."""
    return hashlib.sha256(_CANONICAL.encode(parts).encode("utf-8")).hexdigest()[:16]


def _require(is_met: bool, message: str) -> None:
    if not is_met:
        raise ValueError(message)


def _set_id(record: object, *parts: object) -> None:
    object.__setattr__(record, "id", content_id(type(record).__name__, *parts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Where a text came from, to the character, and what made it.

    Example:
        Provenance(document_id="9f…", start=1204, end=1377, maker="rule:xbrl-fact")
    """

    maker: str
    """Who made it: `person:7`, `model:<name>`, `rule:<name>` or `import:<data set>`."""
    document_id: str = ""
    """Id of the Document that the span is in; empty where no document stands behind the text."""
    start: int = 0
    """First character of the evidence in the document's text."""
    end: int = 0
    """One past the last character of the evidence."""
    page: int = 0
    """Page that the evidence begins on, from 1; 0 where the document has no pages."""
    section: str = ""
    """Section and heading that the evidence stands under, as the document writes them."""
    parents: tuple[str, ...] = ()
    """Ids of the records this one was made from."""

    def __post_init__(self) -> None:
        _require(self.maker.startswith(MAKER_PREFIXES), f"maker {self.maker!r} must start with one of {MAKER_PREFIXES}")
        _require(0 <= self.start <= self.end, f"span {self.start}..{self.end} must be 0 <= start <= end")


@dataclass(frozen=True, slots=True, kw_only=True)
class Document:
    """One source, parsed to text. Offsets of every Provenance count characters of `text`.

    Example:
        Document(text="Item 1. Business …", source="filings/acme-10k.html", sha256="ab…", language="en")
    """

    text: str
    source: str
    """Path of the file relative to the corpus folder."""
    sha256: str
    """SHA-256 of the file's bytes."""
    language: str = ""
    """`en` or `zh`."""
    entity: str = ""
    """The company the document is about, where it could be read."""
    id: str = ""

    def __post_init__(self) -> None:
        _require(bool(self.text.strip()), f"document {self.source!r} has no text")
        _set_id(self, self.text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One turn.

    Example:
        Message(role="user", content="What was Acme's revenue in 2024?")
    """

    role: Role
    content: str

    def __post_init__(self) -> None:
        _require(bool(self.content.strip()), f"a {self.role} message is empty")


def _check_turns(messages: tuple[Message, ...], *, last: Role) -> None:
    _require(len(messages) > 0, "a conversation has no messages")
    turns = messages[1:] if messages[0].role == "system" else messages
    for position, message in enumerate(turns):
        expected = "user" if position % 2 == 0 else "assistant"
        _require(message.role == expected, f"turn {position + 1} is by {message.role!r}, expected {expected!r}")
    _require(len(turns) > 0 and turns[-1].role == last, f"the last turn must be by {last!r}")


def _turns(messages: Iterable[Message]) -> list[list[str]]:
    return [[message.role, message.content] for message in messages]


Operation = Literal["difference", "growth", "ratio", "sum"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Derivation:
    """How code computed a figure of an answer from figures of its evidence.

    Example:
        Derivation(operation="growth", operands=("384.2", "412.6"), result="7.4%")
    """

    operation: Operation
    operands: tuple[str, ...]
    """The figures as they stand in the evidence, in order."""
    result: str
    """The figure as it stands in the answer."""

    def __post_init__(self) -> None:
        _require(len(self.operands) >= 2, f"a {self.operation} needs two operands or more, got {self.operands}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Turns that a model can be trained on: they end with the assistant.

    Example:
        Conversation(messages=(Message(role="user", content="…"), Message(role="assistant", content="…")),
                     category="finance", provenance=Provenance(maker="rule:table-row", document_id="9f…", end=9))
    """

    messages: tuple[Message, ...]
    category: Category = "general"
    language: str = ""
    kind: str = ""
    """Type of the question: figure, change, definition, list, …"""
    form: Literal["closed-book", "open-book", ""] = ""
    """`open-book`: the passage stands in the question."""
    group: str = ""
    """Rows of one group (a company, a topic) never span train and test."""
    provenance: Provenance | None = None
    also_from: tuple[Provenance, ...] = ()
    """Where the rest of the evidence stands, and the provenances of equal records that were folded into this one."""
    derivation: Derivation | None = None
    id: str = ""

    def __post_init__(self) -> None:
        _check_turns(self.messages, last="assistant")
        _set_id(self, _turns(self.messages))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """Turns that wait for an answer: they end with the user.

    Example:
        Prompt(messages=(Message(role="user", content="…"),), category="finance", source="selfqa", group="Acme")
    """

    messages: tuple[Message, ...]
    category: Category = "general"
    source: str = ""
    """Where it was taken from: `selfqa`, `preferences`, a data set's name."""
    subfield: str = ""
    """The part of the category that it belongs to, such as `accounting`; empty where nobody sorted it."""
    language: str = ""
    kind: str = ""
    group: str = ""
    """Rows of one group (a company, a topic) never span train and test."""
    reference: str = ""
    """A known right answer, for the figure checker; empty where there is none. Never shown to a model."""
    provenance: Provenance | None = None
    id: str = ""

    def __post_init__(self) -> None:
        _check_turns(self.messages, last="user")
        _set_id(self, _turns(self.messages))

    @property
    def question(self) -> str:
        """The last paragraph of the last turn: in open-book prompts the passage stands before it."""
        return self.messages[-1].content.rpartition("\n\n")[2]

    @property
    def passage(self) -> str:
        """What stands before the question in the last turn; empty in closed-book prompts."""
        return self.messages[-1].content.rpartition("\n\n")[0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Response:
    """One answer to a prompt, with the settings that sampled it.

    Example:
        Response(text="Revenue was $412.6 million.", model="runs/sft", temperature=1.0, top_p=1.0, seed=7, ended=True)
    """

    text: str
    """The answer without the end token; may be empty, since a model can end at once."""
    model: str
    temperature: float = 0.0
    """0 for greedy decoding."""
    top_p: float = 1.0
    seed: int = 0
    ended: bool = True
    """True if the model wrote its end token; False if the answer was cut off at the limit."""
    provenance: Provenance | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidates:
    """A prompt and the answers sampled for it.

    Example:
        Candidates(prompt=Prompt(…), responses=(Response(…), Response(…)))
    """

    prompt: Prompt
    responses: tuple[Response, ...]
    id: str = ""

    def __post_init__(self) -> None:
        _require(len(self.responses) > 0, f"prompt {self.prompt.id} has no responses")
        _set_id(self, self.prompt.id, [response.text for response in self.responses])


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One annotator's judgement of one pair.

    Example:
        Vote(annotator="person:7", annotation_id="1532", side="chosen", strength=2, flags=("factual_b",))
    """

    annotator: str
    annotation_id: str
    side: Literal["chosen", "rejected"]
    """Which answer of the stored pair this vote prefers: after a vote of three, one may prefer the rejected one."""
    strength: int
    """0 (nearly the same) to 3 (clearly better)."""
    flags: tuple[str, ...] = ()
    reason: str = ""
    is_verdict: bool = False
    """True for the judgement that settled a disagreement: the pair follows it, whatever the other votes say."""
    page: str = ""
    """Hash of the labelling configuration that it was made on."""
    guidelines: str = ""
    """Version of the guidelines on that page."""

    def __post_init__(self) -> None:
        _require(0 <= self.strength <= 3, f"strength {self.strength} must be 0 to 3")
        _require(
            self.annotator.startswith(MAKER_PREFIXES),
            f"annotator {self.annotator!r} must start with one of {MAKER_PREFIXES}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PreferencePair:
    """A prompt with a better and a worse answer.

    Example:
        PreferencePair(prompt=Prompt(…), chosen="…", rejected="…", strength=2, source="label-studio",
                       votes=(Vote(…),), provenance=Provenance(maker="person:7"))
    """

    prompt: Prompt
    chosen: str
    rejected: str
    strength: int
    """0 (nearly the same) to 3 (clearly better): the eight levels A3..B3 without the side."""
    source: str
    """Where the pair comes from: `label-studio`, `rule:figures`, a data set's name."""
    provenance: Provenance
    """`maker` says who preferred: `person:…`, or `rule:figures` where no person did."""
    votes: tuple[Vote, ...] = ()
    chosen_ended: bool = True
    """False if the chosen answer was cut off: it is then trained on without an end token."""
    rejected_ended: bool = True
    rejected_fault: str = ""
    """What is wrong with the rejected answer, where a rule knows: `neighbour`, `figure`, `period`, `run-on`, …"""
    id: str = ""

    def __post_init__(self) -> None:
        _require(0 <= self.strength <= 3, f"strength {self.strength} must be 0 to 3")
        _require(
            (self.chosen, self.chosen_ended) != (self.rejected, self.rejected_ended),
            f"both answers to prompt {self.prompt.id} are the same",
        )
        _set_id(self, self.prompt.id, self.chosen, self.chosen_ended, self.rejected, self.rejected_ended)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranking:
    """One annotator's order of several answers to one prompt; equal ranks are ties.

    Example:
        Ranking(prompt=Prompt(…), responses=("…", "…", "…", "…"), ranks=(1, 3, 2, 3), annotator="person:7")
    """

    prompt: Prompt
    responses: tuple[str, ...]
    ranks: tuple[int, ...]
    """1 is best; as many as responses."""
    annotator: str
    annotation_id: str = ""
    flags: tuple[str, ...] = ()
    """`factual_2`, `unsafe_2`: a fault of the second response; `all_bad`: of all."""
    reason: str = ""
    page: str = ""
    """Hash of the labelling configuration that it was made on."""
    guidelines: str = ""
    """Version of the guidelines on that page."""
    is_verdict: bool = False
    """True if it settles a disagreement of the others' rankings."""
    provenance: Provenance | None = None
    id: str = ""

    def __post_init__(self) -> None:
        _require(len(self.responses) >= 2, "a ranking needs two responses or more")
        _require(len(self.ranks) == len(self.responses), f"{len(self.ranks)} ranks for {len(self.responses)} responses")
        _require(all(rank >= 1 for rank in self.ranks), f"ranks {self.ranks} must be 1 or more")
        verdict = ["verdict"] if self.is_verdict else []  # who ranked may also judge, and judge alike
        _set_id(self, self.prompt.id, list(self.responses), list(self.ranks), self.annotator, *verdict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """One judge's blind comparison of two models' answers to one prompt.

    Example:
        Verdict(prompt_id="9f…", model="runs/ppo", baseline="runs/sft", verdict="good", judge="person:7")
    """

    prompt_id: str
    model: str
    baseline: str
    verdict: Literal["good", "same", "bad"]
    """The model's answer beside the baseline's."""
    judge: str
    id: str = ""

    def __post_init__(self) -> None:
        _require(self.model != self.baseline, f"{self.model!r} is compared with itself")
        _set_id(self, self.prompt_id, self.model, self.baseline, self.verdict, self.judge)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChoiceItem:
    """A multiple-choice question.

    Example:
        ChoiceItem(benchmark="finlm-basics", subject="accounting", question="…", choices=("…", "…"), answer=1)
    """

    benchmark: str
    subject: str
    question: str
    choices: tuple[str, ...]
    answer: int
    """Index of the right choice, from 0."""
    id: str = ""

    def __post_init__(self) -> None:
        _require(len(self.choices) >= 2, f"question {self.question[:40]!r} has {len(self.choices)} choices")
        _require(0 <= self.answer < len(self.choices), f"answer {self.answer} of {len(self.choices)} choices")
        _set_id(self, self.question, list(self.choices))


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutRecord:
    """One answer that PPO sampled and learned from, as logged.

    Example:
        RolloutRecord(update=3, prompt_id="9f…", prompt="…", response="…", score=0.4, kl_nats=0.8,
                      tokens=21, ended=True)
    """

    update: int
    prompt_id: str
    prompt: str
    response: str
    score: float
    """The reward model's normalised score, penalties included."""
    kl_nats: float
    """log pi(answer) - log ref(answer), summed over the answer's tokens."""
    tokens: int
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Removal:
    """What a stage left out, and why: nothing is dropped in silence.

    Example:
        Removal(record_id="9f…", rule="figure-not-in-evidence", reason="'412.7' is not in the passage")
    """

    record_id: str
    rule: str
    reason: str
    text: str = field(default="")
    """The removed content, so that a reader can judge the rule."""
