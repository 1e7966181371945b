"""The sessions in numbers, as Prometheus reads them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from .session_worker import WorkerReport

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Counts(Protocol):
    """What has been counted since the start."""

    opened: int
    refused: int
    workers: int


class _Collector:
    """One moment's families."""

    def __init__(self, reports: Sequence[WorkerReport], counts: Counts) -> None:
        self._reports, self._counts = reports, counts

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        yield CounterMetricFamily("joyavatar_sessions_opened", "Sessions opened.", self._counts.opened)
        yield CounterMetricFamily(
            "joyavatar_sessions_refused", "Requests that found no worker with room.", self._counts.refused
        )
        yield GaugeMetricFamily("joyavatar_workers", "Workers that answer.", len(self._reports))
        yield GaugeMetricFamily("joyavatar_workers_wanted", "Workers that there are to be.", self._counts.workers)
        columns = {
            "sessions": ("Sessions now.", lambda report: len(report.sessions)),
            "free_sessions": ("Sessions that may still be opened.", lambda report: max(0, report.capacity.sessions)),
            "viewers": ("Viewers now.", lambda report: report.viewers),
            "frames_made": ("Video frames since the worker's start.", lambda report: report.frames),
            "delay_seconds": ("From a block's last sample to its frames, the slowest session.", lambda r: r.delay),
            "gpu_free_bytes": ("GPU memory for further sessions.", lambda report: report.capacity.free_bytes),
        }
        for name, (words, value) in columns.items():
            family = GaugeMetricFamily(f"joyavatar_{name}", words, labels=["worker"])
            for report in self._reports:
                if value(report) is not None:
                    family.add_metric([report.where], value(report))
            yield family


def metrics_text(reports: Sequence[WorkerReport], counts: Counts) -> bytes:
    """All metrics in Prometheus's text format."""
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(reports, counts))
    return generate_latest(registry)
