"""The settings of `finlm round`."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finlm.config import default_runs
from finlm.rounds import round_to_go_on
from finlm.runs import has_begun


@dataclass(frozen=True, kw_only=True)
class OnPolicySettings:
    """Settings of a round of people's preferences."""

    runs: str = field(default_factory=default_runs)
    """Run root: the folder that all stages write below; a round lies in `rounds/<number>` of it."""
    number: int = 0
    """Which round, from 1; 0 goes on with the one that is not finished, or begins the next."""
    configs: str = ""
    """Configuration of every stage, a file or a shipped name in which `{stage}` stands for respond, annotate_serve,
    annotate_push, annotate_pull, by_figures, reward, prompts, ppo and evaluate; empty takes the stages' defaults."""
    model: str = "{runs}/sft"
    """Fine-tuned model: answers in round 1, and base of every round's reward model and policy."""
    also_sft: bool = False
    """Let the fine-tuned model answer too where the last round's policy does; answers are dealt out between both."""
    limit: int = 0
    """Prompts asked in this round, at most; 0 takes the limit that respond's configuration says. Prompts of earlier
    rounds are never asked again, so a limit leaves some for later rounds."""
    asked_before: list[str] = field(default_factory=list)
    """Further files of Candidates records, from before the rounds, whose prompts are not asked."""
    preferences: list[str] = field(default_factory=list)
    """Further files of PreferencePair records that every reward model learns from, from before the rounds."""
    figures: bool = False
    """The figure checker prefers in the place of people: a round without Label Studio, to try it."""
    project: str = "Round"
    """Title of the project in Label Studio; the round's number is added."""
    annotators: int = 0
    """How many people are asked about each pair; 0 leaves it to the configurations of annotate_serve."""
    server: str = "{runs}/annotation/server"
    """Folder of the server that `finlm annotate serve` started; all rounds share it."""
    url: str = ""
    """A Label Studio elsewhere; its token is read from LABEL_STUDIO_API_KEY."""
    least_judged: float = 1.0
    """Share of the pushed pairs, 0 to 1, that must be judged before the round goes on."""
    accept_as_is: bool = False
    """Go on with what was judged, whatever `finlm annotate check` says of it; for this start alone."""
    reward_start: Literal["new", "last"] = "new"
    """Where the reward model begins: `new` (from the fine-tuned model) or `last` (from the last round's). It learns
    from the preferences of all rounds either way: begun anew it sees each as often as the others, begun from the last
    one the early ones once more a round, which it then knows by heart."""
    accelerate: str = ""
    """Configuration that `accelerate launch` starts reward model and PPO with, a file or a shipped name such as
    multi_gpu; empty starts one process."""
    seed: int = 0
    """Seed of every stage."""
    threads: int = 0
    """CPU threads of torch; 0 leaves torch's default."""

    def __post_init__(self) -> None:
        for name in ("number", "limit", "annotators", "threads"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)}; it must be 0 or more.")
        if not 0 <= self.least_judged <= 1:
            raise ValueError(f"least_judged is {self.least_judged}; it must be 0 to 1.")
        if len(self.project) > 40:
            raise ValueError(f"project {self.project!r} has {len(self.project)} characters; at most 40 leave room.")

    @property
    def folder(self) -> str:
        """Whose settings are taken up again: those of the round, or of the one before while it has not begun."""
        now = round_to_go_on(Path(self.runs), self.number)
        return str(now.earlier[-1].folder if now.earlier and not has_begun(now.folder) else now.folder)


FREE = ("server", "url", "least_judged", "accelerate")
"""What may change between two starts of a round: it does not change what a stage makes."""
