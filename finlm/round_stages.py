"""The stages of a round, each as the command that a user would type: whose answers, which files, which project."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from finlm.round_settings import OnPolicySettings
from finlm.rounds import Round
from finlm.runs import read_state

CONFIGURED = (
    "respond", "annotate_serve", "annotate_push", "annotate_pull", "by_figures", "reward", "prompts", "ppo", "evaluate",
)  # fmt: skip
"""Stages that have configurations."""
USES_TORCH = ("respond", "reward", "prompts", "ppo", "evaluate")


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """One stage of a round.

    Example:
        Command(name="respond", title="answers", entry="alignment/respond.py", arguments=("--runs", "runs"))
    """

    name: str
    title: str
    entry: str
    arguments: tuple[str, ...]
    folder: Path | None = None
    """Its run folder, if it has one."""
    made: Path | None = None
    """What stands there only when it has ended."""
    is_launched: bool = False
    """True if accelerate may start it in several processes."""

    @property
    def is_finished(self) -> bool:
        """True if an earlier start came to its end: its files are there, and its run says so.

        A stage with neither is never finished: it is asked again at each start.
        """
        if self.folder is not None and (read_state(self.folder) or {}).get("status") != "finished":
            return False
        return self.made.exists() if self.made is not None else self.folder is not None


def respond(settings: OnPolicySettings, now: Round) -> Command:
    """The last round's policy answers prompts that no round has asked, in round 1 the fine-tuned model."""
    policy = str(now.earlier[-1].ppo) if now.earlier else settings.model
    flags: list[object] = ["--output", now.candidates, "--model", policy]
    if now.earlier and settings.also_sft:
        flags += ["--also", json.dumps([{"model": settings.model}])]
    asked = [*settings.asked_before, *(str(one.candidates) for one in now.earlier)]
    flags += ["--asked_before", json.dumps(asked)]
    flags += ["--limit", settings.limit] if settings.limit else []
    return _command(
        settings, "respond", "candidate answers", "alignment/respond.py", flags, folder=now.candidates.with_suffix(""),
        made=now.candidates,
    )  # fmt: skip


def serve(settings: OnPolicySettings, now: Round) -> Command:
    """Make the round's project on the server that runs."""
    flags: list[object] = [
        "--start",
        "false",
        "--page",
        "pairs",
        "--project",
        title_of(settings, now),
        *_server(settings),
    ]
    flags += ["--annotators", settings.annotators] if settings.annotators else []
    return _command(settings, "annotate_serve", "the project", "annotation/serve.py", flags, made=_rejected(now))


def push(settings: OnPolicySettings, now: Round) -> Command:
    """Put the pairs before people."""
    flags: list[object] = ["--candidates", now.candidates, "--log", now.log, "--rejected", _rejected(now)]
    flags += ["--project", title_of(settings, now), *_server(settings)]
    # what it left out is written last, so that file is there only after all pairs are on the server
    return _command(settings, "annotate_push", "pairs to compare", "annotation/push.py", flags, made=_rejected(now))


def pull(settings: OnPolicySettings, now: Round) -> Command:
    """Fetch what people did."""
    flags: list[object] = ["--output", now.preferences, "--log", now.log, "--summary", summary_of(now)]
    flags += ["--project", title_of(settings, now), *_server(settings)]
    return _command(settings, "annotate_pull", "what people preferred", "annotation/pull.py", flags)


def check(settings: OnPolicySettings, now: Round) -> Command:
    """Ask whether the work can be delivered; exit code 1 if not."""
    flags: list[object] = ["--log", now.log, "--redo", redo_of(now), "--least_judged", settings.least_judged]
    return _command(settings, "annotate_check", "can it be delivered", "annotation/check.py", flags)


def annotate_report(settings: OnPolicySettings, now: Round) -> Command:
    """Show how people agreed."""
    page = now.folder / "annotation" / "report.html"
    flags: list[object] = ["--log", now.log, "--html", page]
    return _command(settings, "annotate_report", "how people agree", "annotation/report.py", flags, made=page)


def by_figures(settings: OnPolicySettings, now: Round) -> Command:
    """Prefer by rule, where there are no people."""
    flags: list[object] = ["--candidates", now.candidates, "--output", now.preferences]
    return _command(
        settings, "by_figures", "preferences by rule", "annotation/by_figures.py", flags,
        folder=now.preferences.with_suffix(""), made=now.preferences,
    )  # fmt: skip


def reward(settings: OnPolicySettings, now: Round) -> Command:
    """Learn from the preferences of all rounds so far."""
    flags: list[object] = ["--output", now.reward, "--model", settings.model, "--preferences", now.learned]
    flags += ["--candidates", now.candidates]
    if now.earlier and settings.reward_start == "last":
        flags += ["--start", now.earlier[-1].reward]
    return _command(
        settings, "reward", "reward model", "reward/train.py", flags, folder=now.reward, is_launched=True
    )  # fmt: skip


def prompts(settings: OnPolicySettings, now: Round) -> Command:
    """Collect what PPO is asked: the preferences' prompts and new ones."""
    flags: list[object] = ["--output", now.prompts, "--preferences", now.learned, "--model", settings.model]
    return _command(
        settings, "prompts", "prompts for PPO", "finlm/prompts.py", flags, folder=now.prompts.with_suffix(""),
        made=now.prompts,
    )  # fmt: skip


def ppo(settings: OnPolicySettings, now: Round) -> Command:
    """Align the fine-tuned model with this round's reward model."""
    flags: list[object] = ["--output_dir", now.ppo, "--model", settings.model, "--reward_model", now.reward]
    flags += ["--prompts", now.prompts]
    held_out = now.prompts.with_suffix("") / "held_out.jsonl"
    flags += ["--held_out", held_out] if held_out.is_file() else []
    return _command(settings, "ppo", "PPO", "alignment/ppo.py", flags, folder=now.ppo, is_launched=True)


def evaluate(settings: OnPolicySettings, now: Round) -> Command:
    """Compare the fine-tuned model, the last round's policy and this one's on held-out companies."""
    flags: list[object] = [
        "--output",
        now.evaluation,
        "--models",
        json.dumps(models_of(settings, now)),
        "--baseline",
        "sft",
    ]
    flags += ["--reward_model", now.reward, "--preferences", json.dumps([str(now.learned)])]
    return _command(
        settings, "evaluate", "evaluation on held-out companies", "finlm/evaluate.py", flags, folder=now.evaluation
    )


def rollouts(settings: OnPolicySettings, now: Round) -> Command:
    """Show what PPO sampled."""
    page = now.folder / "rollouts.html"
    flags: list[object] = ["--run", now.ppo, "--html", page]
    return _command(settings, "rollouts", "what PPO sampled", "finlm/rollouts.py", flags, made=page)


def models_of(settings: OnPolicySettings, now: Round) -> dict[str, str]:
    """Name -> folder of the models that are compared at the end of a round."""
    return {"sft": settings.model} | {f"round {one.number}": str(one.ppo) for one in (*now.earlier[-1:], now)}


def title_of(settings: OnPolicySettings, now: Round) -> str:
    """Title of the round's project."""
    return f"{settings.project} {now.number}"


def summary_of(now: Round) -> Path:
    """Where a pull writes its counts and the labelling link."""
    return now.folder / "annotation" / "summary.json"


def redo_of(now: Round) -> Path:
    """Where a check writes whose work is to be done again."""
    return now.folder / "annotation" / "redo.jsonl"


def _rejected(now: Round) -> Path:
    return now.folder / "annotation" / "push" / "rejected.jsonl"


def _server(settings: OnPolicySettings) -> list[str]:
    return ["--url", settings.url] if settings.url else ["--server", settings.server]


def _command(
    settings: OnPolicySettings,
    name: str,
    title: str,
    entry: str,
    flags: Iterable[object],
    *,
    folder: Path | None = None,
    made: Path | None = None,
    is_launched: bool = False,
) -> Command:
    """Put the configuration of a stage before the flags that a round decides."""
    words = ["--runs", settings.runs, *(str(flag) for flag in flags)]
    if settings.configs and name in CONFIGURED:
        words = ["--config", settings.configs.replace("{stage}", name), *words]
    if folder is not None:
        words += ["--seed", str(settings.seed)]
    if name in USES_TORCH and settings.threads:
        words += ["--threads", str(settings.threads)]
    return Command(
        name=name, title=title, entry=entry, arguments=tuple(words), folder=folder, made=made, is_launched=is_launched
    )
