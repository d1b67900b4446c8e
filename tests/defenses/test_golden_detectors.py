"""Every published statistic against the originals' answers (tests/data/golden)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from defenses.detectors import cda, daa_i, daa_s, ftt, localisation, navit2i, ufid
from defenses.detectors.base import Array

GOLDEN = Path(__file__).parents[1] / "data" / "golden"


def golden(name: str) -> dict[str, Array]:
    with np.load(GOLDEN / f"{name}.npz") as file:
        return dict(file)


def test_ftt() -> None:
    z = golden("ftt")
    assert np.array_equal(ftt.levels(z["maps"]), z["levels"])
    found = [ftt.ftt_statistic(x, n) for x, n in zip(z["levels"], z["lengths"], strict=True)]
    np.testing.assert_allclose(found, z["F"], rtol=1e-10)
    assert ((np.round(found, 3) < 2.5) == z["backdoored"]).all()
    assert 77 in z["lengths"]  # the sum of 76 maps divided by 77


def test_cda_features() -> None:
    z = golden("cda")
    assert np.array_equal(ftt.levels(z["maps"]), z["levels"])
    for i, levels in enumerate(z["levels"]):
        pca = cda.pca_components(levels, 20)
        np.testing.assert_allclose(np.abs(pca), np.abs(z["pca"][i]), atol=1e-8)
        covariance = cda.component_covariance(pca)
        scale = z["covariance"][i].max()
        np.testing.assert_allclose(covariance, z["covariance"][i], atol=1e-8 * scale)
        logarithm = cda.log_map(covariance)
        np.testing.assert_allclose(
            logarithm.diagonal(), z["log_map"][i].diagonal(), rtol=1e-9, atol=1e-9
        )
        assert np.abs(logarithm - np.diag(logarithm.diagonal())).max() < 1e-10  # rounding noise


def test_cda_decisions() -> None:
    """From the stored features; from ones a rounding off they are others, as the README says."""
    z = golden("cda")
    features, labels = z["lda_log_maps"].reshape(60, -1), z["lda_labels"]
    train, test = z["lda_train"], z["lda_test"]
    decision = cda.discriminant(features[train], labels[train], features[test])
    np.testing.assert_allclose(decision, z["lda_decision"], atol=1e-6)
    assert ((decision > 0).astype(int) == z["lda_prediction"]).all()
    spectrum = z["lda_log_maps"].diagonal(axis1=1, axis2=2)
    decision = cda.discriminant(spectrum[train], labels[train], spectrum[test])
    np.testing.assert_allclose(decision, z["lda_diagonal_decision"], atol=1e-6)
    both = [z[f"lda_{name}_decision"] for name in ("diagonal", "jittered")]
    assert min(np.corrcoef(z["lda_decision"], other)[0, 1] for other in both) < 0.9
    detector = cda.CDA(features="spectrum")  # positive is benign, low says backdoored
    bad, clean = (spectrum[train][labels[train] == label] for label in (0, 1))
    assert np.allclose(detector.learn(clean, bad)(spectrum[test]), decision, atol=1e-6)


def test_daa() -> None:
    z = golden("daa")
    for i in range(len(z["lengths"])):
        maps = z[f"maps_{i}"]
        er_eos, er_others = daa_i.evolve_rates(maps)
        np.testing.assert_allclose(er_eos, z["er_eos"][i], rtol=1e-6)
        np.testing.assert_allclose(er_others, z["er_others"][i], rtol=1e-6)
        score = daa_i.daa_i_score(er_eos, er_others)
        assert score == pytest.approx(z["daa_i"][i], rel=1e-5, abs=1e-8)
        assert (score < 4.89e-4) == z["daa_i_below"][i]
        increments, times, x0 = daa_s.relative_increments(maps, steps=None)
        assert len(times) == z["solver_points"][i]
        np.testing.assert_allclose(times[:13], z["solver_times"][i], rtol=1e-5)
        np.testing.assert_allclose(x0, z["x0"][i, : len(x0)], rtol=1e-6)
        np.testing.assert_allclose(increments[:12], z["increments"][i], rtol=1e-5, atol=1e-7)
        short, _, _ = daa_s.relative_increments(maps)
        assert np.array_equal(short, increments[:7])
        score = daa_s.daa_s_score(increments)
        assert score == pytest.approx(z["daa_s"][i], rel=1e-5, abs=1e-7)
        assert (score < 1.5e-3) == z["daa_s_below"][i]
        printed, _, _ = daa_s.relative_increments(maps, distinct=True)
        assert daa_s.daa_s_score(printed) == pytest.approx(
            z["daa_s_off_diagonal_min"][i], rel=1e-5, abs=1e-7
        )


def test_ufid() -> None:
    z = golden("ufid")
    for i, features in enumerate(z["features"]):
        similarity, score = ufid.mean_similarity(features)
        np.testing.assert_allclose(similarity, z["similarity"][i], atol=1e-6)
        assert score == pytest.approx(z["score"][i], abs=1e-6)
        half = ufid.mean_similarity(features.astype(np.float16))[1]
        assert half == pytest.approx(z["score_half"][i], abs=2e-3)
    five = [ufid.mean_similarity(own)[1] for own in z["features_of_five"]]
    np.testing.assert_allclose(five, z["score_of_five"], atol=1e-6)


def test_navit2i() -> None:
    z = golden("navit2i")
    for name in z["prompts"]:
        layers = {k: v for k, v in z.items() if k.startswith(f"{name}_activation_")}
        delta = navit2i.activation_differences(layers)
        np.testing.assert_allclose(delta, z[f"{name}_delta"], rtol=1e-5)
        states = z[f"{name}_trusted_states"].astype(float)
        distance = np.linalg.norm((states[1:] - states[0]).reshape(len(states) - 1, -1), axis=1)
        variation = delta / distance
        np.testing.assert_allclose(variation, z[f"{name}_V"], rtol=1e-5)
        score = navit2i.navit2i_score(variation)
        assert score == pytest.approx(z[f"{name}_features"][2], rel=1e-5, nan_ok=True)
    for values, expected in zip(z["lists_V"], z["lists_S"], strict=True):
        score = navit2i.navit2i_score(values[~np.isnan(values)])
        assert score == pytest.approx(expected, rel=1e-5, nan_ok=True)


def test_halving() -> None:
    z = golden("halving")
    table = {tuple(row[:3].astype(int)): row[3] for row in z["similarity"]}
    for prompt, threshold, word, looks in z["found"]:
        own, visited = localisation.halving(
            lambda a, b, i=int(prompt): table[i, a, b], int(z["words"][int(prompt)]), threshold
        )
        assert (own, len(visited)) == (word, looks)
        rows = z["visited"][(z["visited"][:, 0] == prompt) & (z["visited"][:, 1] == threshold)]
        assert visited == [(int(a), int(b)) for _, _, _, a, b in rows]
