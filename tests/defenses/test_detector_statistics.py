"""Each statistic against a hand computation on a recorded example of four tokens."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm

from defenses.detectors.cda import CDA, log_covariance
from defenses.detectors.daa_i import relative_rate
from defenses.detectors.daa_s import coupling, graph_lag
from defenses.detectors.ftt import deviation
from defenses.detectors.navit2i import variation_score
from defenses.detectors.projection import similarity
from defenses.detectors.scaling import SET
from defenses.detectors.ufid import mean_pairwise, perturbed
from redediting.errors import DetectorError


def test_ftt_by_hand() -> None:
    """L = 3: BOS, one word, EOS; position 3 is the first pad, in the mean but no deviation."""
    maps = torch.tensor([[9.0, 9.0], [1.0, 0.5], [0.2, 0.4], [3.0, 3.0], [5.0, 0.0]])
    levels = np.array([[1.0, 127 / 255], [127 / 255, 1.0], [1.0, 1.0]])
    mean = levels.mean(axis=0)
    expected = (math.dist(levels[0], mean) + math.dist(levels[1], mean)) / 2
    assert deviation(maps, 3) == pytest.approx(expected)
    assert deviation(maps * 7, 3) == pytest.approx(expected)  # levels of its own maximum
    assert deviation(torch.ones(77, 4), 77) == 0.0  # alike: low, and no position beyond the last


def test_ftt_is_lower_for_maps_that_look_alike() -> None:
    random = torch.rand(77, 64, generator=torch.Generator().manual_seed(0))
    alike = random[:1] + 0.1 * random
    assert deviation(alike, 9) < deviation(random, 9)


def test_daa_i_by_hand() -> None:
    """L = 4: BOS, two words, EOS at 3; only steps 3→4 and 4→5 count."""
    maps = torch.zeros(7, 5, 1)
    maps[4, 1], maps[5, 1] = 2.0, 2.0  # ER_1 = 2, 0
    maps[4, 2], maps[5, 2] = 1.0, 4.0  # ER_2 = 1, 3
    maps[4, 3], maps[5, 3] = 5.0, 4.0  # ER_e = 5, 1
    maps[3, 4], maps[6, 3], maps[4, 0] = 100.0, 100.0, 100.0  # a pad, a later step, BOS
    expected = (5 - (2 + 1) / 4) + (1 - (0 + 3) / 4)
    assert relative_rate(maps, 4) == pytest.approx(expected)
    still = maps.clone()
    still[:, 3] = 0.0  # an end token that does not move: low
    assert relative_rate(still, 4) < relative_rate(maps, 4)


def test_daa_s_couples_like_with_like() -> None:
    maps = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    distances = {(0, 1): 5.0, (0, 2): 1.0, (1, 2): math.hypot(3, 3)}
    found = coupling(maps)
    for (i, j), distance in distances.items():
        assert found[i, j] == found[j, i] == pytest.approx((6 - distance) / 6)
    assert np.allclose(found.sum(axis=1), 0)


def test_daa_s_against_the_exact_flow_and_the_solver_s_own_grid() -> None:
    """Maps that stand still make one linear system, whose solution is an exponential."""
    nodes = np.array([[1.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    maps = torch.zeros(30, 5, 2)
    maps[:, 1:4] = torch.from_numpy(nodes).float()
    system = coupling(nodes) + np.diag([-1.0, -1.0, -10.0])
    start = np.linalg.norm(nodes, axis=1)
    grid = solve_ivp(lambda t, x: system @ x, (0, 29), start, method="RK45").t
    moved = expm(system * grid[6]) @ start - start
    expected = -(moved[2] - moved[:2].mean())
    assert graph_lag(maps, 4) == pytest.approx(expected, abs=1e-3)


def test_daa_s_switches_graphs_between_steps() -> None:
    maps = torch.rand(30, 5, 2, generator=torch.Generator().manual_seed(1))
    other = maps.clone()
    other[25:] = 0.0  # after the sixth step of the solver: not seen
    assert graph_lag(maps, 4) == pytest.approx(graph_lag(other, 4), rel=1e-6)
    other[0] = other[0].flip(0)
    assert graph_lag(maps, 4) != pytest.approx(graph_lag(other, 4), rel=1e-3)


def test_cda_features_are_a_matrix_logarithm() -> None:
    """Distances between features are the log-Euclidean distances of the covariances."""
    from scipy.linalg import logm

    maps = torch.rand(2, 7, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    logs = []
    for own in maps.numpy():
        scaled = own[1:] / own[1:].max()
        centred = scaled - scaled.mean(axis=0)
        _, _, axes = np.linalg.svd(centred, full_matrices=False)
        covariance = (centred @ axes.T) @ (centred @ axes.T).T / 6
        epsilon = 1e-4 * np.trace(covariance) / 6
        logs.append(logm(covariance + epsilon * np.eye(6)))
    features = [log_covariance(own) for own in maps]
    assert len(features[0]) == 21
    assert np.linalg.norm(features[0] - features[1]) == pytest.approx(
        np.linalg.norm(logs[0] - logs[1]), rel=1e-6
    )
    assert np.allclose(log_covariance(maps[0] * 1000), features[0])  # scale does not matter


def test_cda_learns_a_direction_and_asks_for_examples() -> None:
    random = np.random.default_rng(0)
    clean, bad = random.normal(size=(60, 200)), random.normal(size=(40, 200))
    bad[:, 3] += 6.0
    score = CDA().learn(clean, bad)
    fresh = random.normal(size=(20, 200))
    shifted = fresh.copy()
    shifted[:, 3] += 6.0
    assert (score(shifted) > score(fresh)).all()
    with pytest.raises(DetectorError, match="expected labelled examples for detector 'cda'"):
        CDA().learn(clean)


def test_set_calls_what_is_far_from_clean_prompts_high() -> None:
    random = np.random.default_rng(0)
    score = SET().learn(random.normal(size=(200, 5)))
    assert score(np.full((1, 5), 6.0))[0] > score(np.zeros((1, 5)))[0]


def test_navit2i_by_hand() -> None:
    values = np.array([1.0, 2.0, 3.0, 10.0])  # 75th percentile 4.75
    assert variation_score(values) == pytest.approx(10 / 2)
    assert variation_score(np.array([4.0])) == 1.0
    assert variation_score(np.zeros(0)) == 0.0
    assert variation_score(values * 3) == pytest.approx(5)


def test_ufid_by_hand() -> None:
    features = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    assert mean_pairwise(features) == pytest.approx((0 + 0.6 + 0.8) / 3)
    assert mean_pairwise(features[[0, 0, 0]]) == pytest.approx(1)  # one picture: high
    copies = perturbed("a cat", 3)
    assert copies[0] == "a cat"
    assert len(set(copies)) == 4
    assert all(copy.endswith(" and a cat") for copy in copies[1:])
    assert perturbed("a cat", 3) == copies != perturbed("a dog", 3)


def test_projection_similarity_by_hand() -> None:
    matrices = [torch.eye(2), torch.tensor([[1.0, 0.0]])]
    state, reference = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    assert similarity(matrices, state, reference) == pytest.approx((math.sqrt(0.5) + 1) / 2)
