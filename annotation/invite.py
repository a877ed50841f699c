"""Prints what annotators are sent: a link to make an account with, and the link to the work.

finlm annotate invite                      the links, and who has an account
finlm annotate invite --renew true         a new invitation; the old one ends, accounts stay
"""

import os
import sys

if not __package__:  # run as a file: import from this checkout, not from this folder or from an older install
    sys.path[0] = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))

from dataclasses import dataclass, field

from rich.console import Console

from annotation.connection import connect, labelling_link, require_project
from finlm.config import default_runs, run


@dataclass(frozen=True, kw_only=True)
class InviteSettings:
    """Settings of `finlm annotate invite`."""

    runs: str = field(default_factory=default_runs)
    """The run root."""
    server: str = "{runs}/annotation/server"
    """Folder of the server that `finlm annotate serve` started."""
    url: str = ""
    """A Label Studio elsewhere; its token is read from LABEL_STUDIO_API_KEY."""
    project: str = "Preferences"
    """Title of the project to work on."""
    renew: bool = False
    """End the invitation that was sent before and make a new one."""


def main(settings: InviteSettings) -> None:
    """Find the project, print the links and the accounts."""
    console = Console()
    with connect(settings.url, settings.server) as client:
        project = require_project(client, settings.project)
        invitation = client.renew_invite_link() if settings.renew else client.invite_link()
        lines = {"Once": invitation, "Then": labelling_link(client, project)}
        console.print("Send annotators these links: the first makes an account, the second is the work.")
        for name, value in lines.items():
            console.print(f"  {name:<6}{value}", soft_wrap=True, highlight=False, markup=False)
        if settings.renew:
            console.print("Links that were sent before are refused now; accounts stay.")
        console.print("Accounts:")
        for number, email in sorted(client.people().items()):
            console.print(f"  person:{number:<4}{email}", soft_wrap=True, highlight=False, markup=False)


if __name__ == "__main__":
    run(main, InviteSettings, "Prints what annotators are sent: a link for an account, and one to the work.")
