"""Where the service spends time, by its own metrics: `GET /metrics` before and after a load."""

from __future__ import annotations

import urllib.request
from collections.abc import Mapping

_FAMILIES = {"stageproof_stage_seconds": "stage", "stageproof_request_seconds": "route", "stageproof_batch_images": ""}
"""Histogram → the label that tells its parts apart."""
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))

Metrics = Mapping[str, tuple[float, float]]
"""Name of a stage → (sum, count)."""


def read_metrics(base: str) -> Metrics:
    """Sums and counts of the histograms of the service at `base`. Raises OSError if it does not answer."""
    with _DIRECT.open(f"{base}/metrics", timeout=10) as response:
        return parse_metrics(response.read().decode())


def parse_metrics(text: str) -> Metrics:
    """Sums and counts in Prometheus' text format."""
    from prometheus_client.parser import text_string_to_metric_families

    found: dict[str, list[float]] = {}
    for family in text_string_to_metric_families(text):
        if family.name not in _FAMILIES:
            continue
        for sample in family.samples:
            part = sample.labels.get(_FAMILIES[family.name], "batch")
            if family.name.endswith("request_seconds"):
                if not part.endswith("/infer"):
                    continue
                part = "request"
            for position, end in enumerate(("_sum", "_count")):
                if sample.name.endswith(end):
                    found.setdefault(part, [0.0, 0.0])[position] += sample.value
    return {name: (total, count) for name, (total, count) in found.items()}


def between(before: Metrics, after: Metrics) -> dict[str, float]:
    """Mean of each stage between two readings, in milliseconds; of `batch`, in images."""
    means = {}
    for name, (total, count) in after.items():
        earlier = before.get(name, (0.0, 0.0))
        if count > earlier[1]:
            mean = (total - earlier[0]) / (count - earlier[1])
            means[name] = round(mean if name == "batch" else mean * 1e3, 4)
    return means
