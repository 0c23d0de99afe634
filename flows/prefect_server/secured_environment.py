"""What this process adds to its environment, so that no stranger uses the Prefect server that it starts or knows.

Importing it is enough: every flow does, by `flows.commands`. It stands apart because Prefect is slow to import.
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
    # Not raised: an import has nobody who would make one line of it.
    sys.exit(f"error: {error}")
os.environ.update(OWN)
if OWN:
    # Prefect read its settings when it was imported.
    refresh_global_settings_context()
