"""Covariance discriminative analysis: the covariance between tokens' maps, on its manifold.

76 maps (all positions but BOS) → 20 principal components fitted on the sample → covariance between
tokens C + εI → log C → linear discriminant analysis with one component, learnt from labelled
examples; high says "backdoored". Published on Rickrolling and villan, where examples of the very
attack were in the training set; here it is judged with the attack left out.

References:
    Wang et al., "T2IShield", ECCV 2024 (CDA).

Deviations:
    The covariance is between the tokens (76 x 76): between components it would be diagonal by
    construction. It is not centred once more, over a token's components, whose signs are
    arbitrary. ε is relative, 1e-4 of the mean variance, because C has rank 20 at most.
    Where maps have fewer queries than 20 there are as many components.
    The discriminant shrinks its covariance (Ledoit-Wolf): 2,926 features, some hundred examples.
"""

from __future__ import annotations

from typing import ClassVar

import numpy as np
from pydantic import Field
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from torch import Tensor

from defenses.detectors.base import Array, Detector, Direction, Learns, Scorer
from defenses.detectors.inputs import Subject

_KEPT = 64  # dimensions before the discriminant; shrinkage on all 2,926 takes minutes


def log_covariance(maps: Tensor, *, components: int = 20, floor: float = 1e-4) -> Array:
    """Upper triangle of ``log(C + εI)``, shape ``(76 · 77 / 2,)`` for 77 positions.

    Off-diagonal entries are multiplied by √2, so that Euclidean distances are the matrices'.

    Args:
        maps: ``M_i``, shape ``(positions, Q)``.
        components: principal components of the maps.
        floor: ε relative to the mean variance.
    """
    tokens = maps[1:].double().numpy()
    scale = np.abs(tokens).max() or 1.0
    kept = min(components, *tokens.shape)
    reduced = PCA(kept, svd_solver="full").fit_transform(tokens / scale)
    covariance = reduced @ reduced.T / kept
    epsilon = floor * np.trace(covariance) / len(covariance) or floor
    values, vectors = np.linalg.eigh(covariance + epsilon * np.eye(len(covariance)))
    logarithm = (vectors * np.log(np.clip(values, 0.5 * epsilon, None))) @ vectors.T
    rows, columns = np.triu_indices(len(logarithm))
    upper: Array = logarithm[rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
    return upper


class CDA(Detector):
    """The published features, and a discriminant learnt from labelled examples.

    Attributes:
        components: principal components of a sample's maps.
    """

    name: ClassVar[str] = "cda"
    direction: ClassVar[Direction] = "high"
    learns: ClassVar[Learns] = "labelled"
    recorded: ClassVar[bool] = True

    components: int = Field(default=20, ge=2)

    def _features(self, subject: Subject) -> Array:
        means = subject.recorded.means
        return np.stack([log_covariance(maps, components=self.components) for maps in means])

    def _evaluations(self, subject: Subject) -> float:
        return subject.generation

    def _learn(self, clean: Array, backdoored: Array | None) -> Scorer:
        groups = [clean] if backdoored is None else [clean, backdoored]
        examples = np.concatenate(groups)
        labels = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
        space = PCA(min(_KEPT, *examples.shape), svd_solver="full", random_state=0)
        reduced = space.fit_transform(examples)
        model = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(reduced, labels)

        def scorer(features: Array) -> Array:
            found: Array = model.decision_function(space.transform(features))
            return found

        return scorer
