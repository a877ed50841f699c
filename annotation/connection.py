"""Which server, which token, which project: shared by the three commands."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from annotation.api import LabelStudio, Project
from annotation.server_folder import SERVE, open_secrets, read_address
from finlm.errors import MissingInput, UserError

TOKEN = "LABEL_STUDIO_API_KEY"
"""The environment variable that holds the token of a server of one's own; label-studio-sdk reads the same."""


@contextmanager
def connect(url: str, server: str) -> Iterator[LabelStudio]:
    """Open the server at `url` with the token from the environment, or else the one started from the folder `server`.

    Raises:
        UserError: There is no token for the URL, or the server does not answer or accept it.
    """
    if url:
        token = os.environ.get(TOKEN, "").strip()
        if not token:
            raise UserError(f"--url {url} needs a token; put a personal access token (or a legacy one) into {TOKEN}.")
    else:
        url, token = read_address(Path(server)).url, open_secrets(Path(server)).token
    with LabelStudio(url, token) as client:
        client.whoami()
        yield client


def require_project(client: LabelStudio, title: str) -> Project:
    """Find the project.

    Raises:
        MissingInput: The server has none of this title.
    """
    project = client.find_project(title)
    if project is None:
        raise MissingInput(f"{client.url} has no project {title!r}; make it with: {SERVE} --project {title!r}")
    return project


def verdicts_title(title: str) -> str:
    """Title of the project in which disagreements of another one are settled; Label Studio takes 50 characters."""
    return f"{title[:41]} verdicts"


def labelling_link(client: LabelStudio, project: Project) -> str:
    """The label stream: one task after the other, without the other annotators' answers."""
    return f"{client.url}/projects/{project.id}/data?labeling=1"
