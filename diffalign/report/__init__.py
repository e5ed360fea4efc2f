"""Reports of a run: the page, picture grids, the model card, and the comparison before and after training."""

from __future__ import annotations

from diffalign.report.card import write_card
from diffalign.report.compare import check_comparable, compare, headline, subset_text
from diffalign.report.grids import before_after, image_grid
from diffalign.report.metrics_log import Metrics, read_metrics
from diffalign.report.page import write_report
from diffalign.report.side_by_side import write_side_by_side

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
    "write_side_by_side",
]
