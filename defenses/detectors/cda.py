"""Covariance discriminative analysis: covariance of a sample's maps, on its manifold.

76 maps (all positions but BOS) in 255 levels of their own maxima → 20 principal components fitted
on the sample → covariance between components → matrix logarithm → linear discriminant analysis,
learnt from labelled examples; its positive side is "benign", so low says "backdoored". Published
on Rickrolling and Villan Diffusion with examples of the very attack in the training set.

References:
    Wang et al., "T2IShield", ECCV 2024 (CDA); released code Robin-WZQ/T2IShield at b543ace.

Deviations:
    The covariance between principal components is diagonal by construction: 20 logarithms of
    variances and 380 entries of rounding noise (1e-14), which the discriminant scales up to the
    size of the signal. ``features="spectrum"`` (default) keeps the 20; ``"released"`` all 400, so
    that its scores depend on the rounding of the machine; ``"tokens"``, this project's, is the
    covariance between the 76 tokens, of rank 20, plus 1e-4 of its mean variance.
    Where maps have fewer queries than 20 there are as many components.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from numpy.typing import ArrayLike
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from defenses.detectors.base import Array, Detector, Direction, Learns, Scorer
from defenses.detectors.ftt import levels
from defenses.detectors.inputs import Subject

_KEPT = 64  # dimensions of "tokens" before the discriminant: 2,926 features, some hundred examples
_FLOOR = 1e-4  # ε of "tokens", relative to the mean variance


def pca_components(levels: ArrayLike, n: int = 20) -> Array:
    """Maps in their own principal components, shape ``(maps, n)``, signs free.

    Args:
        levels: a sample's maps in levels, shape ``(maps, …)``; see `ftt.levels`.
        n: components; at most as many as maps and as queries.
    """
    maps = np.asarray(levels, dtype=np.float64).reshape(len(np.asarray(levels)), -1)
    found: Array = PCA(min(n, *maps.shape), svd_solver="full").fit_transform(maps)
    return found


def component_covariance(pca: ArrayLike) -> Array:
    """Covariance of components over the maps (divided by maps - 1), shape ``(n, n)``."""
    found: Array = np.cov(np.asarray(pca), rowvar=False)
    return found


def log_map(cov: ArrayLike) -> Array:
    """Matrix logarithm of a covariance, shape ``(n, n)``; no ε, as released.

    Infinite or NaN where the covariance is singular: maps that do not differ.
    """
    values, vectors = np.linalg.eigh(np.asarray(cov))
    with np.errstate(divide="ignore", invalid="ignore"):
        logarithm: Array = (vectors * np.log(values)) @ vectors.T
    return logarithm


def discriminant(train: ArrayLike, labels: ArrayLike, test: ArrayLike) -> Array:
    """Decisions of scikit-learn's discriminant with one component, shape ``(m,)``.

    Args:
        train: examples, shape ``(n, k)``.
        labels: 0 backdoored, 1 benign, shape ``(n,)``.
        test: what is judged, shape ``(m, k)``.

    Returns:
        Positive where benign, as released.
    """
    model = LinearDiscriminantAnalysis(n_components=1).fit(train, labels)
    found: Array = model.decision_function(test)
    return found


def token_features(pca: Array) -> Array:
    """Upper triangle of ``log(C + εI)`` with C the covariance between tokens.

    Off-diagonal entries are multiplied by √2, so that Euclidean distances are the matrices'.

    Args:
        pca: from `pca_components`, shape ``(maps, n)``.
    """
    between = pca @ pca.T / pca.shape[1]
    epsilon = _FLOOR * np.trace(between) / len(between)
    values, vectors = np.linalg.eigh(between + epsilon * np.eye(len(between)))
    logarithm = (vectors * np.log(np.clip(values, 0.5 * epsilon, None))) @ vectors.T
    rows, columns = np.triu_indices(len(logarithm))
    upper: Array = logarithm[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
    return upper


class CDA(Detector):
    """Features of the covariance, and a discriminant learnt from labelled examples.

    Attributes:
        components: principal components of a sample's maps.
        features: ``spectrum``: the reproducible entries of the released features; ``released``:
            all of them; ``tokens``: this project's.
    """

    name: ClassVar[str] = "cda"
    direction: ClassVar[Direction] = "low"
    learns: ClassVar[Learns] = "labelled"
    recorded: ClassVar[bool] = True

    components: int = Field(default=20, ge=2)
    features: Literal["spectrum", "released", "tokens"] = "spectrum"

    def _features(self, subject: Subject) -> Array:
        samples = levels(subject.recorded.grids())
        return np.stack([self._sample(pca_components(x, self.components)) for x in samples])

    def _sample(self, pca: Array) -> Array:
        if self.features == "tokens":
            return token_features(pca)
        logarithm = log_map(component_covariance(pca))
        return logarithm.ravel() if self.features == "released" else logarithm.diagonal()

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation

    def _learn(self, clean: Array, backdoored: Array | None) -> Scorer:
        bad = clean[:0] if backdoored is None else backdoored
        examples = np.concatenate([bad, clean])
        labels = np.repeat([0, 1], [len(bad), len(clean)])
        if self.features != "tokens":
            return lambda features: discriminant(examples, labels, features)
        space = PCA(min(_KEPT, *examples.shape), svd_solver="full").fit(examples)
        known = space.transform(examples)
        return lambda features: discriminant(known, labels, space.transform(features))
