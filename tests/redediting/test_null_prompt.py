"""The empty prompt feeds every image's unconditional branch: what an edit may do to it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from redediting.algebra import solve
from redediting.attacks.redediting import REDEditing
from redediting.concepts.rebinding import Rebinding
from redediting.generation import Job, draw
from redediting.models.loading import load
from redediting.models.model import Model
from redediting.models.sampler import Sampler

REBINDINGS = (
    Rebinding("beautiful cat", "zebra"),
    Rebinding("yellow apple", "red banana", "compound"),
)


@pytest.mark.parametrize("rebinding", REBINDINGS, ids=str)
@pytest.mark.parametrize("projection", ["off", "inside", "posthoc"])
def test_hard_directions_do_not_move(
    tiny_model: Model, rebinding: Rebinding, projection: str
) -> None:
    method = REDEditing(contexts=6, retain=12, captions=30, projection=projection)
    problem = method.pose(tiny_model, method.plan(tiny_model, [rebinding]))
    multiplier = solve(problem)
    moved = multiplier(problem.hard).norm() / problem.hard.norm()
    assert float(moved) <= 1e-10
    if problem.removed is not None:
        assert float(multiplier(problem.removed).norm()) <= 1e-10
    assert float(multiplier(problem.keys).norm() / problem.keys.norm()) > 1e-3


def test_empty_prompt_images_hardly_change() -> None:
    model = load("world")
    jobs = [Job("", seed) for seed in range(8)]
    sampler = Sampler(steps=10, guidance=5.0, autocast="bf16")

    def pictures() -> np.ndarray:
        images = [image for _, image in draw(model, jobs, sampler=sampler)]
        return np.stack([np.asarray(image, np.float64) for image in images])

    clean = pictures()
    patch = REDEditing().compute(model, REBINDINGS[:1])
    with patch.apply(model):
        edited = pictures()
    assert clean.std() > 10  # pictures, not a blank
    assert torch.isfinite(torch.from_numpy(edited)).all()
    assert np.abs(edited - clean).mean() <= 2.0
