"""From a frozen dataclass to a command line with a YAML file behind it.

    config = parse(PPOSettings, "Aligns a policy.")      flags win over --config, --config wins over the defaults

A default or value that begins with `{runs}/` lies under the run root: `--runs`, else FINLM_RUNS, else `runs`.
Unknown keys and wrong types end with one sentence that names the key, and exit code 2.
"""

import dataclasses
import difflib
import errno
import os
import re
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NoReturn, Protocol, TypeVar, get_args

import yaml
from jsonargparse import ArgumentParser, Namespace, set_parsing_settings

from finlm import runs
from finlm.errors import UserError

PLACES = (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
"""Where shipped configurations lie: in the wheel, in a checkout."""


class Settings(Protocol):
    """A frozen dataclass with a `runs` field: the run root."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def runs(self) -> str:
        """The run root."""
        ...


C = TypeVar("C", bound=Settings)


def default_runs() -> str:
    """The run root where no flag names one."""
    return os.environ.get("FINLM_RUNS", "runs")


class _Parser(ArgumentParser):  # type: ignore[misc]
    """Says in one sentence what is wrong, without the page of usage."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        raise UserError(_sentence(message, [action.dest for action in self._actions], self.prog))


def _sentence(message: str, known: Sequence[str], prog: str) -> str:
    # jsonargparse prefixes its context line by line: the innermost line says what is wrong
    lines = [line.strip(" -") for line in message.splitlines() if line.strip(" -")]
    text = "; ".join(lines) if lines else message
    unknown = re.search(
        r"Option '([\w.]+)' is not accepted|[Uu]nrecogni[sz]ed arguments?: -*([\w.]+)"
        r"|Group '([\w.]+)' does not accept option '([\w.]+)'",
        text,
    )
    if unknown:
        key = ".".join(part for part in unknown.groups() if part)
        near = difflib.get_close_matches(key, known, n=1)
        hint = f"perhaps you meant {near[0]!r}" if near else f"{prog} --help lists the settings"
        return f"Unknown setting {key!r}; {hint}."
    wrong_type = re.search(r'Parser key "([\w.]+)":; (.*?)\.? Got value: (.*)', text)
    if wrong_type:
        key, expected, value = wrong_type.groups()
        return f"Setting {key!r} is {value!r}; {_kind(expected)}."
    return text if text.endswith(".") else text + "."


def _kind(expected: str) -> str:
    """Say a type as a user would: "expected a <class 'int'>" becomes "it must be an integer"."""
    words = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text", "list": "a list"}
    words |= {"dict": "a section of keys"}
    for name, word in words.items():
        if f"<class '{name}'>" in expected:
            return f"it must be {word}"
    choices = re.search(r"Literal\[(.*)\]", expected)
    return f"it must be one of {choices.group(1)}" if choices else f"{expected[0].lower()}{expected[1:]}"


def find_config(name: str) -> str:
    """Return the path of a YAML file, given a path or the name of a shipped configuration such as `ppo_6b`.

    Raises:
        UserError: There is neither, or the file cannot be read.
    """
    if Path(name).is_file():
        return _checked(Path(name))
    for place in PLACES:
        for candidate in (place / name, place / f"{name}.yaml"):
            if candidate.is_file():
                return _checked(candidate)
    shipped = sorted({path.stem for place in PLACES for path in place.glob("*.yaml")})
    raise UserError(f"--config {name}: no such file, and no shipped configuration of that name ({', '.join(shipped)}).")


def _checked(path: Path) -> str:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"--config {path}: not a YAML file ({reason}); see configs/ for examples.") from error
    if not isinstance(content, dict):
        raise UserError(f"--config {path}: holds no settings; write lines of the form 'name: value'.")
    for key, value in content.items():
        if value is None:
            raise UserError(f"Setting {key!r} has no value in {path}; give one or take the line out.")
    return str(path)


def parser_for(settings: type[C], description: str, prog: str | None = None) -> ArgumentParser:
    """Return the parser whose flags are the fields of `settings`."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    short = "--out stands for --output and --output_dir."
    parser = _Parser(prog=prog, description=description, epilog=short, allow_abbrev=False, exit_on_error=True)
    parser.add_argument("--config", action="config", help="YAML file, or the name of a shipped one; flags win over it.")
    parser.add_class_arguments(settings, None)
    return parser


def parse(
    settings: type[C],
    description: str,
    argv: Sequence[str] | None = None,
    prog: str | None = None,
    folder: str = "",
) -> C:
    """Return the settings that the command line (default: this process's) and its YAML file give.

    Args:
        settings: The dataclass.
        description: What the command does, for --help.
        argv: The arguments.
        prog: The command's name.
        folder: Field that holds the run folder. Where that folder has a `config.yaml` and no --config is given, its
            settings take the place of the defaults: a run goes on as it was begun. A start that was refused before it
            made anything does not count.

    Raises:
        UserError: An unknown key, a value of the wrong type, or one that the dataclass refuses.
    """
    arguments = _with_short_names(list(sys.argv[1:] if argv is None else argv), settings)
    arguments = _with_named_file(arguments, settings)
    for position, argument in enumerate(arguments):
        if argument == "--config" and position + 1 < len(arguments):
            arguments[position + 1] = find_config(arguments[position + 1])
        elif argument.startswith("--config="):
            arguments[position] = "--config=" + find_config(argument.removeprefix("--config="))
    parser = parser_for(settings, description, prog)
    found = _parsed(parser, settings, arguments)
    remembered = Path(getattr(found, folder)) / "config.yaml" if folder else None
    is_fresh = getattr(found, "overwrite", False) or any(word.partition("=")[0] == "--config" for word in arguments)
    if remembered is not None and remembered.is_file() and not is_fresh and runs.has_begun(remembered.parent):
        found = _parsed(parser, settings, [f"--config={remembered}", *arguments])
    return found


def _with_short_names(arguments: list[str], settings: type[Any]) -> list[str]:
    """Spell out `--out`, which every command takes for the field that says where its results go."""
    names = [field.name for field in dataclasses.fields(settings)]
    long = next((name for name in ("output", "output_dir") if name in names and "out" not in names), None)
    if long is None:
        return arguments
    return [re.sub(r"^--out(?==|$)", f"--{long}", argument) for argument in arguments]


POSITIONAL = "positional"
"""Key in the metadata of a field whose value may stand on the command line without its flag."""


def _with_named_file(arguments: list[str], settings: type[Any]) -> list[str]:
    """Put the flag before a word that stands alone, for the field that takes one.

    Raises:
        UserError: There are two such words.
    """
    names = [field.name for field in dataclasses.fields(settings) if field.metadata.get(POSITIONAL)]
    if not names:
        return arguments
    found: list[str] = []
    is_value = False
    for argument in arguments:
        is_flag = argument.startswith("-") and not is_value
        if not (is_flag or is_value):
            if f"--{names[0]}" in found:
                raise UserError(
                    f"{argument!r} stands there beside {found[found.index(f'--{names[0]}') + 1]!r}; one file is taken."
                )
            found.append(f"--{names[0]}")
        found.append(argument)
        is_value = is_flag and "=" not in argument and argument not in ("-h", "--help", "--print_config")
    return found


def _parsed(parser: ArgumentParser, settings: type[C], arguments: list[str]) -> C:
    try:
        namespace = parser.parse_args(arguments)
        values = {field.name: _section_of(field, namespace[field.name]) for field in dataclasses.fields(settings)}
        return expand(settings(**values))
    except (ValueError, TypeError) as error:
        raise UserError(_sentence(str(error), [], parser.prog)) from error


def _section_of(field: "dataclasses.Field[Any]", value: Any) -> Any:
    """Return a field's value; a section of settings comes as a namespace and becomes the field's dataclass.

    Of a list of sections each becomes the dataclass that the field's type names.
    """
    inner = get_args(field.type)
    if isinstance(value, list) and inner and dataclasses.is_dataclass(inner[0]):
        kind: Any = inner[0]
        return [kind(**vars(item)) for item in value]
    default = field.default_factory() if callable(field.default_factory) else field.default
    if not dataclasses.is_dataclass(default) or isinstance(default, type):
        return value
    if not isinstance(value, Namespace):
        raise ValueError(f"Setting {field.name!r} is {value!r}; it must be a section of keys.")
    try:
        return type(default)(**vars(value))
    except ValueError as error:
        raise ValueError(f"{field.name}.{error}") from error


def expand(settings: C) -> C:
    """Replace a leading `{runs}` in every string, also in lists and sections, by the run root."""
    root = settings.runs

    def expanded(value: Any) -> Any:
        if isinstance(value, str) and value.startswith("{runs}"):
            return root + value.removeprefix("{runs}")
        if isinstance(value, list | tuple):
            return type(value)(expanded(item) for item in value)
        if isinstance(value, dict):
            return {key: expanded(item) for key, item in value.items()}
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            return dataclasses.replace(
                value, **{one.name: expanded(getattr(value, one.name)) for one in dataclasses.fields(value) if one.init}
            )
        return value

    changes = {field.name: expanded(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    return dataclasses.replace(settings, **changes)


def section(name: str, given: Mapping[str, Any], accepted: type, ours: Mapping[str, Any]) -> Any:
    """Build a library's config (`accepted`, a dataclass) from the nested section `name` and what we set ourselves.

    Raises:
        UserError: A key that the library's config does not have, one that we set, or a value it refuses.
    """
    known = [field.name for field in dataclasses.fields(accepted) if field.init]
    for key in given:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f"; perhaps you meant {near[0]!r}" if near else ""
            raise UserError(f"Unknown setting '{name}.{key}': {accepted.__name__} has no such field{hint}.")
        if key in ours:
            raise UserError(f"'{name}.{key}' is set by this project and cannot be given in the section {name!r}.")
    try:
        return accepted(**{**ours, **given})
    except (ValueError, TypeError) as error:
        raise UserError(f"Section {name!r}: {error}") from error


def run(main: Callable[[C], None], settings: type[C], description: str, folder: str = "") -> NoReturn:
    """Parse this process's command line, run `main`, and exit: 0, 2 for what the user can mend, 130 on Ctrl-C.

    `folder` names the field with the run folder, as in `parse`.
    """
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    # what libraries plan to rename is for their users' developers, not for who runs a stage
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        main(parse(settings, description, folder=folder))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted: the same command goes on from the last checkpoint.", file=sys.stderr)
        sys.exit(130)
    except Exception as error:
        if not is_full_disk(error):
            raise
        print(
            "error: the disk is full: what was being written was not kept, what lay there before is whole; free some "
            "space, then the same command goes on from the last checkpoint.",
            file=sys.stderr,
        )
        sys.exit(2)
    sys.exit(0)


def is_full_disk(error: BaseException) -> bool:
    """True if a write found no room, whoever was writing.

    safetensors and torch write from compiled code, whose errors carry the system's number in their text or not at all.
    """
    numbers = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    found: BaseException | None = error
    while found is not None:
        if isinstance(found, OSError) and found.errno in numbers:
            return True
        if any(f"os error {number})" in str(found) for number in numbers) or "PytorchStreamWriter" in str(found):
            return True
        found = found.__cause__ or found.__context__
    return False
