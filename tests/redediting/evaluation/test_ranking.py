"""Ranking before images: what is promised is what the multiplier does."""

from __future__ import annotations

import pytest
import torch

from redediting.algebra.diagnostics import footprint, gram
from redediting.attacks import ATTACKS
from redediting.attacks.base import ClosedForm
from redediting.concepts.rebinding import Rebinding
from redediting.concepts.templates import contexts
from redediting.evaluation.ranking import Foresight, foresee, mean_foresight, ranked
from redediting.models.model import Model

WISH = Rebinding("beautiful cat", "zebra")


def test_expected_drift_is_the_energy_of_the_applied_edit(
    tiny_model: Model,
) -> None:
    columns = torch.randn(32, 200, dtype=torch.float64)
    moment = columns @ columns.T / 200
    method = ATTACKS.make("eviledit", ridge=0.5)
    assert isinstance(method, ClosedForm)
    found = foresee(tiny_model, method, WISH, moment=moment, templates=contexts(3, split="dev"))
    clean = tiny_model.weights()
    before = {name: weight.clone() for name, weight in clean.items()}
    patch = method.compute(tiny_model, [WISH])
    with patch.apply(tiny_model) as applied:
        seen = footprint(before, clean, moment)
    assert found.drift == pytest.approx(seen.energy, rel=1e-4)
    assert seen.norm == pytest.approx(applied.footprint, rel=1e-6)
    assert 0 < seen.rank <= patch.terms[0].left.shape[1]
    nothing = footprint(before, before, moment)
    assert (nothing.norm, nothing.rank, nothing.energy) == (0, 0, 0)


def test_a_footprint_by_hand() -> None:
    torch.manual_seed(0)
    weight = torch.randn(6, 5, dtype=torch.float64)
    moved = (
        weight @ torch.randn(5, 1, dtype=torch.float64) @ torch.randn(1, 5, dtype=torch.float64)
    )
    columns = torch.randn(5, 30, dtype=torch.float64)
    found = footprint({"w": weight}, {"w": weight + moved}, columns @ columns.T)
    assert found.rank == 1
    assert found.norm == pytest.approx(float(moved.norm() / weight.norm()))
    share = (moved @ columns).square().sum() / (weight @ columns).square().sum()
    assert found.energy == pytest.approx(float(share))
    assert torch.allclose(gram([weight]), weight.T @ weight)


def test_kept_settings_come_first_then_what_lacks_least() -> None:
    settings = {
        "weak": Foresight(0.5, 0.1, 0.01),
        "loud": Foresight(0.95, 0.5, 0.02),
        "dear": Foresight(0.95, 0.2, 0.5),
        "good": Foresight(0.92, 0.3, 0.1),
    }
    assert ranked(settings) == ["good", "dear", "loud", "weak"]
    mean = mean_foresight([settings["weak"], settings["dear"]])
    assert (mean.firing, mean.probe_firing, mean.drift) == pytest.approx((0.725, 0.15, 0.255))
