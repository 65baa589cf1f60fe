"""A snapshot of the metrics in Prometheus' formats: the only module that imports its client library.

That library brings an HTTP server of its own, 2 MiB of memory: it is imported at the first scrape, in its thread.
"""

from __future__ import annotations

import gzip
from collections.abc import Iterable, Mapping

from prometheus_client.exposition import choose_encoder, gzip_accepted
from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)

from probed.metrics import CATALOGUE, Series, Snapshot, values_of


def encode(snapshot: Snapshot, accept: str = "", accept_encoding: str | None = None) -> tuple[bytes, str, bool]:
    """(exposition, content type, whether it is gzipped), as the request's headers ask for. Fit for any thread."""
    collector = _Collector(snapshot)
    try:
        encoder, content_type = choose_encoder(accept)
        content_type.encode("ascii")
        body = encoder(collector)
    except (TypeError, ValueError):
        # A version that is no version, or is not even text: the format that everybody reads.
        encoder, content_type = choose_encoder("")
        body = encoder(collector)
    zipped = accept_encoding is not None and gzip_accepted(accept_encoding)
    return gzip.compress(body, 1) if zipped else body, content_type, zipped


class _Collector:
    """Stands in for a registry, so that no default metric of the library sneaks in."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        """One family per metric that has something to say, in the order of the catalogue."""
        values = values_of(self._snapshot)
        for series in CATALOGUE:
            if series.type == "histogram":
                yield HistogramMetricFamily(series.name, series.help, *self._snapshot.histograms[series.name])
            elif values[series.name]:
                yield _family(series, values[series.name])


def _family(series: Series, values: Mapping[tuple[str, ...], float]) -> Metric:
    if series.type == "info":
        info = InfoMetricFamily(series.name.removesuffix("_info"), series.help)
        for labels in values:
            info.add_metric([], dict(zip(series.labels, labels, strict=True)))
        return info
    kind = CounterMetricFamily if series.type == "counter" else GaugeMetricFamily
    family = kind(series.name, series.help, labels=series.labels)
    for labels, value in values.items():
        family.add_metric(labels, value)
    return family
