"""One round of people's preferences on the newest policy's own answers, from candidates to the next policy.

    finlm round                         goes on with the round that is not finished, or begins the next as the last was
    finlm round --number 2              the same, and says so if round 1 is not finished
    finlm round --figures true          the figure checker prefers in the place of people: to try it

Answers of the last round's policy (in round 1 of the fine-tuned model) to prompts that no round has asked go to Label
Studio. There the command ends: people compare them, and the same command goes on with a reward model of all rounds'
preferences, prompts, PPO from the fine-tuned model, an evaluation beside the last round, and a page. Each stage is the
command that a user would type; what is finished is not repeated, and a stage that was killed goes on where it was.
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from finlm import config, jsonl, round_stages, runs, stages
from finlm.errors import UserError
from finlm.records import PreferencePair
from finlm.round_settings import FREE, OnPolicySettings
from finlm.round_stages import Command
from finlm.rounds import Round, round_to_go_on

Do = Callable[[Command], int]


def main(settings: OnPolicySettings) -> None:
    """Answer, ask people, learn, align, compare, show."""
    console = Console(highlight=False)
    now = round_to_go_on(Path(settings.runs), settings.number)
    accelerate = stages.accelerate_file(settings.accelerate) if settings.accelerate else ""
    inputs = inputs_of(settings, now)
    with now.only_one() as lock:
        run = opened(settings, now, inputs)
        if run.is_finished:
            print(f"Round {now.number} is finished: {now.page}; finlm round begins the next one.")
            return

        def do(command: Command, accepted: tuple[int, ...] = (0,)) -> int:
            if command.is_finished:
                console.print(f"round {now.number}, {command.title}: finished before")
                return 0
            console.rule(f"round {now.number}: {command.title}")
            words = stages.command_of(
                command.entry, command.arguments, accelerate=accelerate if command.is_launched else ""
            )
            return stages.run(command.name, words, accepted=accepted, keeps_open=[lock])

        do(round_stages.respond(settings, now))
        if not now.learned.is_file():
            if settings.figures:
                do(round_stages.by_figures(settings, now))
            elif not are_people_done(settings, now, do):
                return
            gather(settings, now)
        do(round_stages.reward(settings, now))
        do(round_stages.prompts(settings, now))
        do(round_stages.ppo(settings, now))
        do(round_stages.rollouts(settings, now))
        do(round_stages.evaluate(settings, now))
        from finlm import round_page  # brings torch, which the stages need more room for

        counts = round_page.write(now, round_stages.models_of(settings, now))
        run.finish(**counts)
    print(f"Round {now.number} is finished: {now.page}; finlm round begins the next one.")


def opened(settings: OnPolicySettings, now: Round, inputs: dict[str, Path]) -> runs.Run:
    """Begin the round, or find it as it was begun.

    Raises:
        UserError: It was begun with other settings, or what it stands on has changed since.
    """
    try:
        # the next round takes these settings up, but not its number, nor that work was accepted as it was
        kept = dataclasses.replace(settings, number=0, accept_as_is=False)
        return runs.Run.open(now.folder, "round", kept, inputs=inputs, free=FREE)
    except UserError as error:
        fault = str(error).partition("; ")[0]
        raise UserError(f"{fault}; go on as it was begun, or move {now.folder} away to begin it afresh.") from error


def inputs_of(settings: OnPolicySettings, now: Round) -> dict[str, Path]:
    """Return what a round stands on, by name.

    Raises:
        MissingInput: The fine-tuned model or another file is not there.
    """
    model = runs.require(settings.model, what="The fine-tuned model", made_by="python alignment/sft.py")
    found = {"model": model / "model" if (model / "model").is_dir() else model}
    for path in settings.preferences:
        found[path] = runs.require(path, what="Preferences", made_by="finlm annotate pull")
    for path in settings.asked_before:
        found[path] = runs.require(path, what="Candidates", made_by="finlm respond")
    for one in now.earlier:
        found[f"preferences of round {one.number}"] = one.preferences
        found[f"policy of round {one.number}"] = one.ppo / "policy"
    return found


def are_people_done(settings: OnPolicySettings, now: Round, do: Callable[..., int]) -> bool:
    """Put the pairs before people, fetch what they did, and say what is still to be done, if anything is.

    Raises:
        UserError: Somebody's work is to be done again.
    """
    do(round_stages.serve(settings, now))
    do(round_stages.push(settings, now))
    do(round_stages.pull(settings, now))
    told = json.loads(round_stages.summary_of(now).read_text(encoding="utf-8"))
    judged, waiting = told["judged_pairs"], told["waiting_pairs"]
    if judged and not settings.accept_as_is and do(round_stages.check(settings, now), accepted=(0, 1)):
        if any(round_stages.redo_of(now).read_text(encoding="utf-8").splitlines()):
            raise UserError(
                f"Round {now.number}: some work is to be done again ({round_stages.redo_of(now)}); then the same "
                "command goes on, or --accept_as_is true takes it as it is."
            )
        judged = 0
    if not judged:
        print(
            f"Round {now.number} waits for people: {waiting:,} of {told['judged_pairs'] + waiting:,} pairs are to be "
            f"judged at {told['link']}; then the same command goes on."
        )
        return False
    do(round_stages.annotate_report(settings, now))
    return True


def gather(settings: OnPolicySettings, now: Round) -> None:
    """Write the preferences of all rounds so far into one file.

    Raises:
        UserError: This round's came to nothing.
    """
    if not any(True for _ in jsonl.read(now.preferences, PreferencePair)):
        raise UserError(
            f"{now.preferences} holds no preference, so there is nothing to learn from; see rejected.jsonl beside it, "
            "have some pairs judged again, then the same command goes on."
        )
    files = [*map(Path, settings.preferences), *(one.preferences for one in (*now.earlier, now))]
    jsonl.write(now.learned, (pair for path in files for pair in jsonl.read(path, PreferencePair)))


if __name__ == "__main__":
    config.run(main, OnPolicySettings, __doc__ or "", folder="folder")
