"""The limits of the intervals are those of a simulation."""

from __future__ import annotations

import pytest

from experiments.bench.coverage import SHAPES, coverage, table
from redediting.metrics.intervals import BCA_FROM, FEWEST


@pytest.mark.slow
def test_what_is_printed_covers_92_per_cent() -> None:
    for kind, sizes in (
        ("bootstrap-t", (FEWEST, 8, 12, 20, BCA_FROM - 1)),
        ("bca", (BCA_FROM, 40)),
    ):
        for c in sizes:
            found = {shape: coverage(kind, shape, c, draws=4000) for shape in SHAPES}
            least = min(covered for covered, _ in found.values())
            assert least >= 0.92, f"{kind} at {c}: {found}"
            assert min(printed for _, printed in found.values()) > 0.95


@pytest.mark.slow
def test_bca_does_not_below_its_limit() -> None:
    for c in (6, 10, 20):
        assert min(coverage("bca", shape, c)[0] for shape in SHAPES) < 0.92


def test_the_table_has_a_line_a_shape_and_the_least() -> None:
    frame = table(draws=40)
    assert len(frame.rows) == 2 * (len(SHAPES) + 1)
    assert all(0 <= row["6"] <= 1 for row in frame.rows)
    assert "| bca | least |" in frame.to_markdown()
