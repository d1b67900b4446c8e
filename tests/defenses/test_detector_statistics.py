"""Each statistic on examples small enough to compute by hand."""

from __future__ import annotations

import math
import re

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp
from scipy.linalg import expm, logm

from defenses.detectors import DETECTORS
from defenses.detectors.cda import pca_components, token_features
from defenses.detectors.daa_i import daa_i_score, evolve_rates
from defenses.detectors.daa_s import coupling, daa_s_score, relative_increments
from defenses.detectors.ftt import ftt_statistic, levels
from defenses.detectors.navit2i import activation_differences, navit2i_score
from defenses.detectors.projection import similarity
from defenses.detectors.scaling import SET
from defenses.detectors.tnc import TNCLike
from defenses.detectors.ufid import mean_similarity, perturbed
from redediting.errors import DetectorError


def test_ftt_by_hand() -> None:
    """L = 3: BOS, one word, EOS; position 3 is the first pad, in the mean but no deviation."""
    maps = torch.tensor([[[9.0, 9.0]], [[1.0, 0.5]], [[0.2, 0.4]], [[3.0, 3.0]], [[5.0, 0.0]]])
    own = np.array([[1.0, 127 / 255], [127 / 255, 1.0], [1.0, 1.0]])
    mean = own.mean(axis=0)
    expected = (math.dist(own[0], mean) + math.dist(own[1], mean)) / 2
    assert ftt_statistic(levels(maps), 3) == pytest.approx(expected)
    assert np.array_equal(levels(maps * 8), levels(maps))  # levels of its own maximum


def test_daa_i_by_hand() -> None:
    """L = 4: BOS, two words, EOS at 3; only steps 3→4 and 4→5 count."""
    maps = torch.zeros(7, 4, 1)
    maps[4, 1], maps[5, 1] = 2.0, 2.0  # ER_1 = 2, 0
    maps[4, 2], maps[5, 2] = 1.0, 4.0  # ER_2 = 1, 3
    maps[4, 3], maps[5, 3] = 5.0, 4.0  # ER_e = 5, 1
    maps[6, 3], maps[4, 0] = 100.0, 100.0  # a later step, BOS
    expected = (5 - (2 + 1) / 4) + (1 - (0 + 3) / 4)
    assert daa_i_score(*evolve_rates(maps)) == pytest.approx(expected)
    assert daa_i_score(*evolve_rates(maps), first=5, last=5) == pytest.approx(96 - (2 + 4) / 4)


def test_daa_s_couples_like_with_like() -> None:
    maps = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]])
    distances = {(0, 1): 5.0, (0, 2): 1.0, (1, 2): math.hypot(3, 3)}
    for distinct, span in ((False, 5), (True, 6)):
        found = coupling(maps, distinct=distinct)
        for (i, j), distance in distances.items():
            assert found[i, j] == found[j, i] == pytest.approx((span - distance) / span)
        assert np.allclose(found.sum(axis=1), 0)
    assert np.allclose(coupling(np.ones((3, 2))).diagonal(), -2)  # maps alike


def test_daa_s_against_the_exact_flow_and_the_solver_s_own_grid() -> None:
    """Maps that stand still make one linear system, whose solution is an exponential."""
    nodes = np.array([[1.0, 0.0], [0.0, 2.0], [2.0, 2.0]])
    maps = torch.zeros(30, 4, 2)
    maps[:, 1:] = torch.from_numpy(nodes).float()
    system = coupling(nodes) + np.diag([-1.0, -1.0, -10.0])
    start = np.linalg.norm(nodes, axis=1)
    grid = solve_ivp(lambda t, x: system @ x, (0, 29), start, method="RK45").t
    moved = expm(system * grid[7]) @ start - start
    expected = -(moved[2] - moved[:2].mean())
    increments, times, _ = relative_increments(maps)
    assert np.allclose(times, grid[:8])
    assert daa_s_score(increments) == pytest.approx(expected, abs=1e-3)


def test_cda_features_of_tokens_are_a_matrix_logarithm() -> None:
    """Distances between features are the log-Euclidean distances of the covariances."""
    maps = np.random.default_rng(0).random((2, 6, 12))
    logs = []
    for own in maps:
        covariance = (own - own.mean(axis=0)) @ (own - own.mean(axis=0)).T / 6
        epsilon = 1e-4 * np.trace(covariance) / 6
        logs.append(logm(covariance + epsilon * np.eye(6)))
    features = [token_features(pca_components(own, 6)) for own in maps]
    assert len(features[0]) == 21
    distance = np.linalg.norm(features[0] - features[1])
    assert distance == pytest.approx(np.linalg.norm(logs[0] - logs[1]), rel=1e-6)


@pytest.mark.parametrize("features", ["spectrum", "tokens"])
def test_cda_learns_a_direction_and_asks_for_examples(features: str) -> None:
    random = np.random.default_rng(0)
    clean, bad = random.normal(size=(60, 20)), random.normal(size=(40, 20))
    bad[:, 3] += 6.0
    detector = DETECTORS.make("cda", features=features)
    score = detector.learn(clean, bad)
    fresh = random.normal(size=(20, 20))
    shifted = fresh.copy()
    shifted[:, 3] += 6.0
    assert detector.direction == "low"
    assert (score(shifted) < score(fresh)).all()
    with pytest.raises(DetectorError, match="expected labelled examples for detector 'cda'"):
        detector.learn(clean)


def test_set_calls_what_is_far_from_clean_prompts_high() -> None:
    random = np.random.default_rng(0)
    score = SET().learn(random.normal(size=(200, 5)))
    assert score(np.full((1, 5), 6.0))[0] > score(np.zeros((1, 5)))[0]


def test_tnc_like_by_hand() -> None:
    clean = np.array([[1.0, 0.0], [3.0, 0.2]])  # means 2 and 0.1, deviations 1 and 0.1
    score = TNCLike().learn(clean)
    assert score(np.array([[2.0, 0.1], [2.5, -0.2], [9.0, 0.1]])) == pytest.approx([0, 3, 7])


def test_navit2i_by_hand() -> None:
    values = np.array([10.0, 2.0, 1.0, 3.0])
    assert navit2i_score(values) == navit2i_score(values * 3) == pytest.approx(10 / 2)
    assert math.isnan(navit2i_score([4.0]))
    assert math.isnan(navit2i_score([]))
    outputs = {
        "linear": np.array([[[1.0, 2.0], [3.0, 4.0]], [[2.0, 2.0], [3.0, 0.0]]]),
        "convolution": np.array([[[[1.0, 3.0]]], [[[4.0, 0.0]]]]),  # means over space are alike
    }
    assert activation_differences(outputs) == pytest.approx([5 / 4])


def test_ufid_by_hand() -> None:
    features = torch.tensor([[2.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    cosines, score = mean_similarity(features)
    assert score == pytest.approx((0 + 0.6 + 0.8) / 3)
    assert np.allclose(cosines.diagonal(), 1)
    assert mean_similarity(features[[0, 0, 0]])[1] == pytest.approx(1)  # one picture: high
    copies = perturbed("a cat", 4)
    assert copies[0] == "a cat"
    assert len(set(copies)) == 5
    assert all(re.fullmatch(r"an? [a-z ]+ a cat", copy) for copy in copies[1:])
    assert perturbed("a cat", 4) == copies != perturbed("a dog", 4)


def test_projection_similarity_by_hand() -> None:
    matrices = [torch.eye(2), torch.tensor([[1.0, 0.0]])]
    state, reference = torch.tensor([1.0, 1.0]), torch.tensor([1.0, 0.0])
    assert similarity(matrices, state, reference) == pytest.approx((math.sqrt(0.5) + 1) / 2)
