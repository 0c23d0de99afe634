"""The Prefect flows: they say when and where, start commands and decide; they compute nothing."""

import os
import sys

from ballast.errors import UserError

# No flow reports to anybody.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Where no server is set, Prefect starts one for the run; on a busy machine that takes longer than the 20 seconds it allows.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# A run says this often that it goes on, wherever it was started; Prefect allows no less.
HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
HEARTBEAT_SECONDS = 30
os.environ.setdefault(HEARTBEAT, str(HEARTBEAT_SECONDS))

# After what is set above: it imports Prefect, which reads its settings once.
from prefect.context import refresh_global_settings_context  # noqa: E402
from prefect.settings import get_current_settings  # noqa: E402

from flows.access import own_settings  # noqa: E402

# What every flow adds to its environment: see own_settings.
try:
    OWN = {name: value for name, value in own_settings(get_current_settings()).items() if os.environ.get(name) != value}
except UserError as error:
    # Not raised: an import has nobody who would make one line of it.
    sys.exit(f"error: {error}")
os.environ.update(OWN)
if OWN:
    refresh_global_settings_context()
