"""What a page and a check of the annotators' work have in common: which votes they read, and what they find too bad."""

from dataclasses import dataclass, field

from finlm.config import default_runs
from finlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class QualitySettings:
    """Which votes, and when somebody is named."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    log: str = "{runs}/annotation/log.sqlite"
    """The local log of `finlm annotate pull`."""
    project: str = ""
    """Which project of the log, as its key says; not needed where there is one."""
    preferences: str = ""
    """A file of preferences with votes, instead of the log."""
    least_gold: float = 0.8
    """Share of pairs of known answer that an attentive annotator gets right."""
    false_alarms: float = 0.05
    """Chance that anybody is named where nobody is to blame."""

    def __post_init__(self) -> None:
        for name in ("least_gold", "false_alarms"):
            if not 0 < getattr(self, name) < 1:
                raise UserError(f"{name} is {getattr(self, name)}; it must lie between 0 and 1.")
