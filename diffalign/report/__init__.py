"""What a run leaves for a reader: the page, the picture grids, the model card, and the comparison before/after."""

from __future__ import annotations

from diffalign.report.card import write_card
from diffalign.report.compare import check_comparable, compare, headline, subset_text
from diffalign.report.grids import before_after, image_grid
from diffalign.report.metrics_log import Metrics, read_metrics
from diffalign.report.page import write_report

__all__ = [
    "Metrics",
    "before_after",
    "check_comparable",
    "compare",
    "headline",
    "image_grid",
    "read_metrics",
    "subset_text",
    "write_card",
    "write_report",
]
