"""Label Studio's own settings, with a sqlite that many people can write to at once. Only its server imports this.

Left as it is, a request reads first and asks for the right to write later; where another one wrote in between, sqlite
refuses at once, however long the time-out: "database is locked", and the annotator's click is lost. So every
transaction asks for that right at its beginning and waits for it.
"""

# Label Studio's module reads its settings while it makes them: what it asks for has to stand in this one already
from core.settings.base import *  # noqa: F403

SENTRY_DSN = ""  # errors are reported to nobody

from core.settings.label_studio import *  # noqa: E402, F403
from core.settings.label_studio import DATABASES  # noqa: E402

if DATABASES["default"]["ENGINE"] == "django.db.backends.sqlite3":
    DATABASES["default"]["OPTIONS"] = {
        "timeout": 60,
        "transaction_mode": "IMMEDIATE",
        "init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL",  # readers do not wait for who writes
    }
