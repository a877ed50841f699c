"""Starts Label Studio for annotators and prints the links they need.

finlm annotate serve                       install, start, make the project, stay until Ctrl-C
finlm annotate serve --detach true         the same, but go on in the background
finlm annotate serve --stop true           end the one in the background
finlm annotate serve --url https://…       make the project on a Label Studio of your own, start nothing
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

import signal
import subprocess
from dataclasses import dataclass, field, replace
from pathlib import Path

from rich.console import Console

from annotation import environment, server
from annotation.api import CutOff, LabelStudio, Project
from annotation.connection import connect, labelling_link
from annotation.database import read_database
from annotation.page import labelling_page, read_guidelines, shipped_guidelines
from annotation.server_folder import SERVE, copies_of, open_secrets
from annotation.vocabulary import Language, PageKind
from finlm.config import default_runs, run
from finlm.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ServeSettings:
    """Settings of `finlm annotate serve`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    server: str = "{runs}/annotation/server"
    """Folder of the server: its database, log and secrets."""
    environment: str = field(
        default_factory=lambda: os.environ.get("FINLM_LABEL_STUDIO_ENV") or "{runs}/annotation/label-studio-env"
    )
    """Folder of Label Studio's own environment; FINLM_LABEL_STUDIO_ENV sets the default, so that several share one."""
    port: int = 8080
    """Port on 127.0.0.1."""
    database: str = ""
    """`postgresql://user@host:port/name`, its password in PGPASSWORD or ~/.pgpass; empty for sqlite."""
    hints: bool = False
    """Let the server call this machine, as `finlm annotate listen` needs; read when it starts."""
    project: str = "Preferences"
    """Title of the project, 3 to 50 characters."""
    page: PageKind = "pairs"
    """What the project asks: `pairs` (two answers, eight levels) or `ranks` (four answers, a rank for each)."""
    language: Language = "zh"
    """Language of the labelling page."""
    guidelines: str = ""
    """Markdown file with the guidelines, its first line `Version …`; empty for the ones that come with the project."""
    annotators: int = 1
    """How many people are asked about each pair; read when the project is made."""
    update_page: bool = False
    """Replace the page of an existing project by the one of these settings."""
    detach: bool = False
    """Go on in the background."""
    start: bool = True
    """False starts no server: it makes the project on the one of this folder that runs already."""
    stop: bool = False
    """End the server that runs in the background, and nothing else."""
    url: str = ""
    """A Label Studio that runs already; its token is read from LABEL_STUDIO_API_KEY."""
    start_seconds: float = 300.0
    """How long the server may take to be ready, in seconds."""

    def __post_init__(self) -> None:
        if not 3 <= len(self.project) <= 50:
            raise UserError(f"--project {self.project!r} has {len(self.project)} characters; a title has 3 to 50.")
        if self.annotators < 1:
            raise UserError(f"--annotators {self.annotators} must be 1 or more.")
        read_database(self.database)


def main(settings: ServeSettings) -> None:
    """Install, start, make the project, print the links, and stay until the server ends or Ctrl-C."""
    console = Console()
    folder = Path(settings.server)
    if settings.stop:
        stop(folder, console)
        return
    # the server stores it without outer blanks: with them it would never be the same as before
    page = labelling_page(settings.page, settings.language, read_guidelines(guidelines_file(settings))).strip()
    if settings.url:
        with connect(settings.url, settings.server) as client:
            show(client, make_project(client, settings, page, console), settings, console)
        return
    if server.running(folder):
        console.print("The server of this folder runs already.")
        with connect("", settings.server) as client:
            show(client, make_project(client, settings, page, console), settings, console)
        return
    if not settings.start:
        raise UserError(f"No server of {folder} is running; start it with: {SERVE} --detach true")
    server.require_free_port(settings.port)
    command = environment.ensure(Path(settings.environment), console)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a service manager's SIGTERM ends us like Ctrl-C
    database = read_database(settings.database)
    child = server.start(command, folder, settings.port, database, takes_hints=settings.hints)
    try:
        server.wait_until_healthy(child, folder, settings.start_seconds, console)
        with connect("", settings.server) as client:
            show(client, make_project(client, settings, page, console), settings, console)
        if settings.detach:
            console.print(f"It goes on in the background; end it with: {SERVE} --stop true")
            return
        console.print("Ctrl-C ends the server.")
        stay(child, folder)
    except BaseException as end:
        server.stop_child(child)
        if not isinstance(end, KeyboardInterrupt):
            raise
        console.print("\nThe server has ended; nothing is lost, the same command starts it again.")


def guidelines_file(settings: ServeSettings) -> Path:
    """The file of guidelines that the settings name."""
    return Path(settings.guidelines) if settings.guidelines else shipped_guidelines(settings.language, settings.page)


def make_project(client: LabelStudio, settings: ServeSettings, page: str, console: Console) -> Project:
    """Find the project by its title or create it. A page that somebody has changed is left alone unless asked."""
    if client.version() != environment.VERSION:
        console.print(f"Note: the server is Label Studio {client.version()}; tried with {environment.VERSION}.")
    project = client.find_project(settings.project)
    if project is None:
        project = client.create_project(settings.project, page, annotators=settings.annotators)
    if not settings.url:
        keep_copies(client, project, Path(settings.server), console)
    if project.label_config != page and settings.update_page:
        client.set_label_config(project.id, page)
        return replace(project, label_config=page)
    if project.label_config != page:
        console.print(
            f"Note: project {settings.project!r} has another labelling page than these settings give; it is kept "
            "(--update_page true replaces it)."
        )
    return project


def keep_copies(client: LabelStudio, project: Project, folder: Path, console: Console) -> None:
    """Have our own server write each annotation to a file as well, beside its database."""
    copies = copies_of(folder) / str(project.id)
    copies.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        client.keep_copies(project.id, str(copies))
    except CutOff:
        raise
    except UserError as error:  # a server that an earlier version of ours started may not write there
        console.print(f"Note: no second copy is kept in {copies} ({error}); start the server anew.", soft_wrap=True)


def show(client: LabelStudio, project: Project, settings: ServeSettings, console: Console) -> None:
    """Print what the lead and the annotators need."""
    console.print(f"\nProject [bold]{project.title}[/bold], {project.tasks} pairs")
    lines = {"Labelling": labelling_link(client, project), "Invitation": client.invite_link()}
    if not settings.url:
        path = Path(settings.server) / "secrets.json"
        known = open_secrets(Path(settings.server))
        lines["Login"] = known.email
        # a password belongs on a person's screen, not into the log of whatever else reads this
        lines["Password"] = known.password if console.is_terminal else f"in {path}"
    for name, value in lines.items():
        console.print(f"  {name:<11}{value}", soft_wrap=True, highlight=False, markup=False)
    console.print("Annotators open the invitation once to make an account, then the labelling link.")
    if settings.start:  # without a start something else made the project, and goes on by itself
        console.print("Next: finlm annotate push, and finlm annotate pull whenever you like.\n")


def stay(child: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until the server ends: by Ctrl-C here or `--stop true` elsewhere; by itself it should not."""
    code = child.wait()
    if code == -signal.SIGTERM:
        raise KeyboardInterrupt
    raise UserError(f"Label Studio ended by itself with exit code {code}; see {folder / 'label-studio.log'}.")


def stop(folder: Path, console: Console) -> None:
    """End the server in the background."""
    process = server.running(folder)
    if process is None:
        console.print(f"No server of {folder} is running.")
        return
    server.stop(process)
    console.print("The server has ended.")


if __name__ == "__main__":
    run(main, ServeSettings, "Starts Label Studio for annotators and prints the links they need.")
