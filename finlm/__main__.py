"""The command `finlm`: every stage by its name.

finlm selfqa --corpus filings/      finlm sft      finlm ppo --config ppo_6b      finlm reward serve
"""

import sys
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

COMMANDS = {
    "selfqa": ("selfqa.generate", "filings -> grounded instructions"),
    "sft": ("alignment.sft", "instructions and text -> fine-tuned model"),
    "sft-report": ("finlm.sft_report", "how fine-tuning went, several runs beside each other, as a page"),
    "respond": ("alignment.respond", "prompts -> several candidate answers each"),
    "annotate serve": ("annotation.serve", "install and start Label Studio on this machine"),
    "annotate invite": ("annotation.invite", "the links that annotators are sent"),
    "annotate push": ("annotation.push", "candidate answers -> pairs to compare"),
    "annotate pull": ("annotation.pull", "annotators' choices -> preferences"),
    "annotate evaluate": ("annotation.evaluate", "which of two models people prefer, blind, with intervals"),
    "annotate report": ("annotation.report", "how annotators agree, and whose work to look at, as a page"),
    "annotate check": ("annotation.check", "whether the work can be delivered, and whose batch to do again"),
    "annotate adjudicate": ("annotation.adjudicate", "pairs that people disagree on -> one more judge"),
    "annotate backup": ("annotation.backup", "log, Label Studio's database and secrets, copied while in use"),
    "annotate recover": ("annotation.recover", "Label Studio's own copies of annotations -> the log"),
    "annotate listen": ("annotation.listen", "pull whenever Label Studio says that something changed"),
    "annotate import": ("annotation.importing", "published data sets of people's preferences -> preferences"),
    "annotate by-figures": ("annotation.by_figures", "preferences by rule, without people (demo)"),
    "annotate by-passage": ("annotation.by_passage", "preferences without people: what a passage says above what not"),
    "reward": ("reward.train", "preferences -> reward model"),
    "reward score": ("reward.score", "a file of answers or pairs -> the same with scores"),
    "reward serve": ("reward.serve", "a reward model over HTTP, for other trainers"),
    "prompts": ("finlm.prompts", "preferences and instructions -> prompts for PPO"),
    "ppo": ("alignment.ppo", "fine-tuned model + reward model + prompts -> policy"),
    "round": ("finlm.round", "the last policy's answers -> people -> reward model -> next policy, resumed"),
    "rollouts": ("finlm.rollouts", "what PPO sampled, in the terminal or as a page"),
    "evaluate": ("finlm.evaluate", "base, SFT and PPO on held-out prompts"),
    "trace": ("finlm.trace", "an answer -> the line of a filing, the people who preferred it"),
    "chat": ("finlm.chat", "talk to a checkpoint"),
    "demo": ("finlm.demo", "the whole loop on the example filings"),
}
"""Command -> module and what it does."""

STAGES = ("alignment", "annotation", "reward", "selfqa")


def foreign_stage() -> str | None:
    """Say which stage's package comes from another distribution, if one does.

    The plain names are shared with others on PyPI (`alignment`, for one), and pip installs both over each other without
    a word.
    """
    home = Path(__file__).resolve().parent.parent
    for name in STAGES:
        spec = find_spec(name)
        origin = Path(spec.origin).resolve() if spec is not None and spec.origin else None
        if origin is None or origin.parent.parent != home:
            return f"'{name}' is {origin}, not {home / name}; give finlm an environment of its own."
    return None


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    lines = [f"  finlm {name:<{width}}   {remark}" for name, (_, remark) in COMMANDS.items()]
    return "\n".join(["usage: finlm COMMAND [flags]      finlm COMMAND --help lists its flags", "", *lines])


def main() -> None:
    """Run the stage that the command line names, as its module would run as a script."""
    words = sys.argv[1:]
    if not words or words[0] in {"-h", "--help"}:
        print(usage())
        return
    if words[0] == "--version":
        from importlib.metadata import version

        print(version("finlm"))
        return
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    if name not in COMMANDS:
        print(f"error: no command {name!r}.\n{usage()}", file=sys.stderr)
        sys.exit(2)
    fault = foreign_stage()
    if fault:
        print(f"error: {fault}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"finlm {name}", *words[len(name.split()) :]]
    become(COMMANDS[name][0])


def become(entry: str) -> None:
    """Run an entry as this process's main module.

    As runpy would, but `sys.argv` keeps the command's name, and the entry is found in `sys.modules`: jsonargparse looks
    there for the source in which the settings' texts stand.
    """
    spec = find_spec(entry)
    assert spec is not None
    module = ModuleType("__main__")
    vars(module).update(__spec__=spec, __file__=spec.origin, __package__=spec.parent, __loader__=spec.loader)
    sys.modules["__main__"] = module
    code = spec.loader.get_code(entry)  # type: ignore[union-attr]
    exec(code, vars(module))


if __name__ == "__main__":
    main()
