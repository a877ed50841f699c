"""The errors that users meet.

UserError            what was given cannot be used: one sentence, exit code 2, no traceback
  MissingInput       a file or folder that an earlier stage writes is not there
"""


class UserError(Exception):
    """What the user gave cannot be used.

    The message is one sentence that names the thing, its value, the limit where there is one, and the way out.
    """


class MissingInput(UserError):
    """A file or folder that an earlier stage writes is not there; the message names the command that makes it."""
