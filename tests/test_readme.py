"""The documents against the code: commands parse, files and links exist, names and computed numbers are right."""

import ast
import contextlib
import importlib
import importlib.util
import io
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
import yaml
from transformers import AutoConfig, LlamaForCausalLM

from finlm import config, records
from finlm.__main__ import COMMANDS
from finlm.errors import UserError

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path.relative_to(ROOT).as_posix()
    for place in (ROOT, ROOT / "docs", ROOT / "examples")
    for path in place.glob("*.md")
)
PACKAGES = ("alignment", "annotation", "reward", "selfqa", "finlm")
CHECKED = ("python", "accelerate", "finlm", "make")
UNCHECKED = {".", "pip", "git", "ssh"}
"""Commands of other people's tools that a block may hold."""


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


def blocks(document: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", text_of(document), flags=re.DOTALL | re.MULTILINE)


def commands_of(document: str) -> Iterator[tuple[list[str], bool]]:
    """Yield the words of each command, and True if it stands in a block to be typed (False: within a sentence)."""
    for block in blocks(document, "bash"):
        for line in block.replace("\\\n", " ").splitlines():
            if words := shlex.split(line, comments=True):
                yield words, True
    prose = re.sub(r"^```.*?^```$", "", text_of(document), flags=re.DOTALL | re.MULTILINE)
    for span in re.findall(r"`([^`\n]+)`", prose):
        if span.split()[0] in CHECKED:
            yield shlex.split(span), False


ALL_COMMANDS = [(document, *found) for document in DOCUMENTS for found in commands_of(document)]


def settings_of(module: str) -> type[Any] | None:
    """The dataclass that an entry hands to `config.run`; None for a script with another parser."""
    spec = importlib.util.find_spec(module)
    assert spec is not None, f"no module {module}"
    assert spec.origin is not None, f"{module} is no file"
    for call in ast.walk(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))):
        if isinstance(call, ast.Call) and ast.unparse(call.func) in {"config.run", "run"} and len(call.args) == 3:
            return getattr(importlib.import_module(module), ast.unparse(call.args[1]))  # type: ignore[no-any-return]
    return None


def check_entry(module: str, arguments: list[str], *, is_typed: bool) -> None:
    """Parse the arguments as the entry would; a bare name within a sentence only has to exist."""
    settings = settings_of(module)
    assert settings is not None, f"{module} is no entry"
    if arguments != ["--help"] and (arguments or is_typed):
        config.parse(settings, "", arguments, module)


def module_of(file: str) -> str:
    assert (ROOT / file).is_file(), f"no file {file}"
    return file.removesuffix(".py").replace("/", ".")


def check_make(words: list[str], *, is_typed: bool) -> None:
    targets = set(re.findall(r"^([a-z][a-z-]*):", text_of("Makefile"), flags=re.MULTILINE))
    assert words, "make without a target"
    assert {word for word in words if "=" not in word} <= targets


def check_finlm(words: list[str], *, is_typed: bool) -> None:
    if words in ([], ["--version"], ["--help"]):
        return
    name = " ".join(words[:2]) if " ".join(words[:2]) in COMMANDS else words[0]
    assert name in COMMANDS, f"no command finlm {name}"
    check_entry(COMMANDS[name][0], words[len(name.split()) :], is_typed=is_typed)


def check_python(words: list[str], *, is_typed: bool) -> None:
    if words[0] == "-c":
        compile(words[1], "<document>", "exec")
    elif words[0] == "-m" and words[1].split(".")[0] not in PACKAGES:
        assert importlib.util.find_spec(words[1]) is not None, f"no module {words[1]}"
    elif words[0] == "-m":
        check_entry(words[1], words[2:], is_typed=is_typed)
    elif words[0].split("/")[0] in PACKAGES:
        check_entry(module_of(words[0]), words[1:], is_typed=is_typed)
    else:
        source = (ROOT / words[0]).read_text(encoding="utf-8")
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))


def check_accelerate(words: list[str], *, is_typed: bool) -> None:
    assert words.pop(0) == "launch"
    if words[0] == "--config_file":
        loaded = yaml.safe_load((ROOT / words[1]).read_text(encoding="utf-8"))
        assert loaded["compute_environment"] == "LOCAL_MACHINE"
        words = words[2:]
    is_module = words[0] == "-m"
    words = words[is_module:]
    check_entry(words[0] if is_module else module_of(words[0]), words[1:], is_typed=is_typed)


@pytest.mark.parametrize(("document", "words", "is_typed"), ALL_COMMANDS, ids=lambda part: str(part)[:60])
def test_command_is_accepted(document: str, words: list[str], is_typed: bool) -> None:
    checks = {"make": check_make, "finlm": check_finlm, "python": check_python, "accelerate": check_accelerate}
    if words[0] in checks:
        checks[words[0]](words[1:], is_typed=is_typed)
    else:
        assert words[0] in UNCHECKED, f"{document}: is {words[0]} a command that should be checked?"


def test_readme_shows_every_command() -> None:
    shown = {" ".join(words[1:3]) for document, words, _ in ALL_COMMANDS if document == "README.md"}
    shown |= {words[1] for document, words, _ in ALL_COMMANDS if document == "README.md" and len(words) > 1}
    assert set(COMMANDS) <= shown


@pytest.mark.parametrize("command", ["finlm nothing", "make nothing", "python alignment/none.py"])
def test_an_unknown_command_is_noticed(command: str) -> None:
    name, *words = command.split()
    with pytest.raises(AssertionError):
        {"finlm": check_finlm, "make": check_make, "python": check_python}[name](words, is_typed=True)


def test_an_unknown_flag_is_noticed() -> None:
    with pytest.raises(UserError, match="Unknown setting 'learning_rat'"):
        check_finlm(["ppo", "--learning_rat", "1e-5"], is_typed=True)


# ---------------------------------------------------------------------------------------------- files and links


def tree() -> dict[str, str]:
    """Path -> remark of README's tree."""
    (block,) = [block for block in blocks("README.md", "text") if block.startswith("alignment/")]
    found: dict[str, str] = {}
    folder = ""
    for line in block.splitlines():
        name, _, remark = line.strip().partition(" ")
        if not line.startswith(" "):
            folder = name if name.endswith("/") else ""
        found[name if name == folder else folder + name] = remark.strip()
    return found


def tracked(*patterns: str) -> set[str]:
    """Files under version control; in an export without git, all files."""
    if shutil.which("git") and (ROOT / ".git").exists():
        told = subprocess.run(["git", "ls-files", "-z", "--", *patterns], cwd=ROOT, capture_output=True, check=True)
        return {name for name in told.stdout.decode().split("\0") if name and (ROOT / name).is_file()}
    return {path.relative_to(ROOT).as_posix() for pattern in patterns for path in ROOT.glob(pattern)}


def test_everything_in_the_tree_is_there() -> None:
    shown = tree()
    assert len(shown) > 80
    assert [path for path in shown if not (ROOT / path).exists()] == []
    assert [path for path, remark in shown.items() if not remark] == []


def test_every_module_is_in_the_tree() -> None:
    modules = tracked(*(f"{package}/*.py" for package in PACKAGES))
    modules = {path for path in modules if not path.endswith("/__init__.py")}
    assert len(modules) > 70
    assert sorted(modules - set(tree())) == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_links_lead_somewhere(document: str) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", text_of(document)):
        if "://" not in target:
            assert ((ROOT / document).parent / target.partition("#")[0]).exists(), f"{document} links to {target}"


def test_stage_table_names_the_shipped_configurations() -> None:
    rows = re.findall(r"^\| `finlm .*\| ([^|]*) \|$", text_of("README.md"), flags=re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == {path.stem for path in (ROOT / "configs").glob("*.yaml")}


# ---------------------------------------------------------------------------------------------- the picture


def test_picture_names_files_and_records_that_exist() -> None:
    root = ElementTree.parse(ROOT / "docs" / "journey.svg").getroot()
    texts = [(node.get("class"), node.text or "") for node in root.iter("{http://www.w3.org/2000/svg}text")]
    entries = [text for _, text in texts if text.endswith(".py")]
    assert len(entries) == 11
    assert [text for text in entries if not (ROOT / text).is_file()] == []
    told = next(block for block in blocks("README.md", "text") if "──►" in block)
    assert [text for text in entries if text not in told] == []
    nouns = {text for kind, text in texts if kind == "record" and text[0].isupper()}
    assert {"Conversation", "Document", "Candidates", "PreferencePair", "Prompt"} == nouns
    assert all(hasattr(records, noun) for noun in nouns)
    assert [text for kind, text in texts if kind == "code" and text.endswith("jsonl") and text not in told] == []


# ---------------------------------------------------------------------------------------------- lineage, numbers


def test_lineage_example_finds_the_evidence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    filing = ROOT / "examples" / "filings" / "garnet-mesa-energy-10-k-2024.txt"
    (tmp_path / "filings").mkdir()
    shutil.copy(filing, tmp_path / "filings")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("FINLM_RUNS", raising=False)
    generate = importlib.import_module("selfqa.generate")
    generate.main(config.parse(generate.Settings, "", ["--corpus", "filings/", "--runs", "runs"]))
    capsys.readouterr()
    (snippet,) = blocks("README.md", "python")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(snippet, "README.md", "exec"), {})
    answer, source, evidence = printed.getvalue().split("\n", 2)
    assert source.split()[0] == filing.name
    assert " ".join(evidence.split()) in " ".join(filing.read_text(encoding="utf-8").split())
    assert answer


def test_memory_of_the_6b_is_computed() -> None:
    shape = json.loads(text_of("configs/model/6b.json"))
    with torch.device("meta"):
        model = LlamaForCausalLM(AutoConfig.from_pretrained(ROOT / "configs" / "model" / "6b.json"))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    linear = [module for module in model.model.modules() if isinstance(module, torch.nn.Linear)]
    lora = yaml.safe_load(text_of("configs/ppo_6b.yaml"))["lora"]
    adapter_gb = sum(lora["r"] * (layer.in_features + layer.out_features) for layer in linear) * 4 / 1e9
    # keys and values of every layer, two bytes each
    cache_bytes = 2 * 2 * shape["num_hidden_layers"] * shape["hidden_size"]
    told = text_of("README.md")
    assert f"{parameters / 1e9:.2f} billion parameters" in told
    assert f"| base, bfloat16 | {parameters * 2 / 1e9:.1f} GB |" in told
    assert f"float32 | {adapter_gb:.2f} GB |" in told
    # weights, gradients and two moments of two trained adapters, and the reward model's weights
    assert f"reward adapter | {(2 * 4 + 1) * adapter_gb:.1f} GB |" in told
    assert f"{cache_bytes / 1e6:.2f} MB a token, prompts included: {cache_bytes * 64 * 512 / 1e9:.0f} GB" in told
    # merged in float32, with the fifth of room that finlm.model asks for
    assert f"| {parameters * 4 * 1.2 / 1e9:.0f} GB of free main memory |" in told


# ---------------------------------------------------------------------------------------------- notation


def test_notation_has_every_mask() -> None:
    told = text_of("docs/notation.md").partition("## What a mask is True for")[2].partition("\n## ")[0]
    sources = [(ROOT / path).read_text(encoding="utf-8") for path in tracked(*(f"{name}/*.py" for name in PACKAGES))]
    used = {name for source in sources for name in re.findall(r"\b(?:is|was|has)_[a-z_]+_[A-Z0-9]+\b", source)}
    assert used == set(re.findall(r"`((?:is|was|has)_[a-z_]+_[A-Z0-9]+)`", told))


def test_notation_has_every_axis() -> None:
    told = text_of("docs/notation.md").partition("## Axes")[2].partition("\n## ")[0]
    letters = set(re.findall(r"^\| (\w) \|", told, flags=re.MULTILINE))
    sources = [(ROOT / path).read_text(encoding="utf-8") for path in tracked(*(f"{name}/*.py" for name in PACKAGES))]
    used = {axes for source in sources for axes in re.findall(r"\b[a-z][a-z_]*_([BTPADNV1]+)\b", source)}
    assert {letter for axes in used for letter in axes} <= letters


def test_notation_has_only_metrics_that_are_logged() -> None:
    named = set(re.findall(r"`((?:objective|rollout|loss|policy|val|perf)/\w+)`", text_of("docs/notation.md")))
    logging = ("ppo_trainer", "ppo_log", "perf", "sampling", "sampler_gap")
    source = "".join(text_of(f"alignment/{name}.py") for name in logging)
    assert len(named) > 15
    assert [name for name in sorted(named) if f'"{name}"' not in source] == []


def test_notation_has_only_settings_and_records_that_exist() -> None:
    told = text_of("docs/notation.md")
    ppo = importlib.import_module("alignment.ppo_config").PPOConfig
    fields = set(ppo.__dataclass_fields__)
    table = told.partition("## PPO")[2].partition("Lines of")[0]
    assert set(re.findall(r"`(\w+)`", table)) <= fields
    nouns = told.partition("## Files of records")[2]
    for noun, module in re.findall(r"`([A-Z]\w+)`(?: \(in `([\w/]+)\.py`\))?", nouns):
        home = importlib.import_module(module.replace("/", ".")) if module else records
        assert hasattr(home, noun), noun
