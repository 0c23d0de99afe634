"""Prefect flows: they decide when and where commands run; they compute nothing."""

import os

# No usage statistics are sent.
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
# Prefect starts a temporary server if none is set; on a busy machine that takes longer than its default of 20 seconds.
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "120")
# Interval of heartbeats, in seconds; Prefect allows no shorter one.
HEARTBEAT = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
HEARTBEAT_SECONDS = 30
os.environ.setdefault(HEARTBEAT, str(HEARTBEAT_SECONDS))
