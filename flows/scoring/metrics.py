"""The metrics of the endpoint, as Prometheus reads them."""

from __future__ import annotations

from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
MESSAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)


class Metrics:
    """The metrics of a process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        own: Any = {"namespace": "ballast", "registry": self.registry}
        self.requests = Counter("requests", "Requests by path and status.", ["path", "status"], **own)
        self.seconds = Histogram("request_seconds", "Time to answer a request to /score.", buckets=SECONDS, **own)
        self.messages = Counter("messages", "Answered messages by label and version.", ["label", "version"], **own)
        self.review = Counter("review", "Answered messages that people decide.", **own)
        self.repeated = Counter("repeated", "Messages that were answered from what was written.", **own)
        self.batch = Histogram("batch_messages", "Messages of a batch.", buckets=MESSAGES, **own)
        self.waiting = Gauge("waiting_messages", "Messages that wait to be scored.", **own)
        self.loads = Counter("loads", "Loads of a version by result.", ["result"], **own)
        self.version = Gauge("version_info", "The version that answers.", ["version"], **own)

    def deployed(self, version: str) -> None:
        """Name the version that answers."""
        self.version.clear()
        self.version.labels(version).set(1)

    def scored(self, reply: dict[str, Any], messages: int) -> None:
        """Count what a batch of messages gave."""
        self.batch.observe(messages)
        self.repeated.inc(reply["repeated"])
        for result in reply["results"]:
            for answer in result.get("answers", ()):
                self.messages.labels(answer["label"], answer["version"]).inc()
                self.review.inc(answer["review"])

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)
