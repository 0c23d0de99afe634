"""The Prefect flows: they say when and where, start commands and decide; they compute nothing."""

import os

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
