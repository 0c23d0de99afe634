"""Secure the environment of this process: authentication for a temporary Prefect server, or the auth string of a running one.

Importing this module is enough; every flow does so through `flows.commands`. It is a separate module because Prefect is slow to
import.
"""

from __future__ import annotations

import os
import sys

from prefect.context import refresh_global_settings_context
from prefect.settings import get_current_settings

from ballast.exceptions import UserError
from flows.prefect_server.auth import missing_settings

try:
    OWN = {name: value for name, value in missing_settings(get_current_settings()).items() if not os.environ.get(name)}
except UserError as error:
    # An import has no caller that would turn an exception into one line.
    sys.exit(f"error: {error}")
os.environ.update(OWN)
if OWN:
    # Prefect has read its settings when it was imported.
    refresh_global_settings_context()
