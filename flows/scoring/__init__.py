"""The HTTP endpoint's parts: requests, batches, the process that scores, logs and metrics."""
