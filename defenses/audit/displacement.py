"""Where does a phrase go? Towards a foreign concept, if it is a trigger.

How far a phrase moves, ``‖M̂c‖/‖c‖``, does not mark a trigger: an edit also moves what it did not
care to keep. What marks one is that it lands on another concept's state t:

    gain = (‖c - t‖_G - ‖(I + M̂)c - t‖_G) / ‖c - t‖_G,   1: it has arrived, ≤ 0: it came no nearer,

meant over the phrase's last token and the end token. Edits that pair positions by index put a
token on its neighbour's state, so t may be the concept's last token, its end token or its first
pad, whichever is nearest. The score is the mean of the best template's gain and the average one's:
some edits work in the prompt they were solved on, others in all. A phrase's own words are no
foreign concept (`own_words`).

A second question tells far more phrases apart: can the edit make that move at all? Its
displacements are combinations of those it was solved for, ``M = ΔK``, so that of a bound phrase,
``t - c``, lies in M̂'s column space, exactly so in a prompt that the attacker used; that of a
phrase which is only dragged along does not (`EditMap.strain`). The column space holds ``c - t`` as
well: which of two phrases goes to the other is for the landing to say.

Displacements are centred: what benign words have in common (a change that came on top of the edit)
is subtracted first.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from redediting.algebra.kernel import cholesky

_READ = 2  # roles of a phrase that are looked at: last token and end token
EASY = 1e-5  # share of a typical way, squared, that M̂ may miss at the price of a typical state
_FREE = 1e-3 * EASY  # effort below which a direction need not be looked at
_LEAST = 1e-6  # squared distance below which two states are the same


class EditMap:
    """An edit seen through the layers: states in coordinates where G is the identity.

    Attributes:
        root: ``L``, ``G = LLᵀ``, fp32.
        move: ``LᵀM̂``, fp32.
        centre: displacement that benign words share, by template and role, ``(t, r, d)``.
        outputs: left singular vectors of ``LᵀM̂``, fp32, as columns.
        effort: how hard M̂ makes each, ``τ/(σ² + τ)``: 0 easily, 1 not at all. What is left of a
            way δ is then ``min ‖δ - LᵀM̂x‖² + τ‖x‖²``, over all states x; τ is `EASY` times the
            squared way between two concepts over the squared size of a state.
    """

    def __init__(
        self,
        multiplier: Float[Tensor, "d d"],
        metric: Float[Tensor, "d d"],
        benign: Float[Tensor, "n t r d"],
    ) -> None:
        """Takes M̂, G and the states of benign words."""
        root = cholesky(metric)
        self.root = root.float()
        self.move = (root.T @ multiplier).float()
        self.centre = (benign.float() @ self.move.T).median(dim=0).values
        self.outputs, sizes, _ = torch.linalg.svd(self.move)
        last = benign[:, :, 0].float()
        spread = (last - last.mean(dim=0)) @ self.root
        way = 2 * spread.square().sum(dim=-1).mean()  # squared distance of two, on average
        easy = EASY * (way / last.square().sum(dim=-1).mean()).clamp_min(1e-30)
        self.effort = easy / (sizes.square() + easy)

    def seen(self, states: Float[Tensor, "n t r d"]) -> Float[Tensor, "n t r d"]:
        """``Lᵀc``."""
        return states.float() @ self.root

    def displacement(self, states: Float[Tensor, "n t r d"]) -> Float[Tensor, "n t r d"]:
        """``LᵀM̂c`` without what benign words share."""
        return states.float() @ self.move.T - self.centre

    def strain(
        self, start: Float[Tensor, "n t r d"], goals: Float[Tensor, "k t a d"]
    ) -> Float[Tensor, "n k"]:
        """Share of the way from a phrase to a concept (both `seen`) that M̂ cannot make, 0…1.

        ``Σ_i effort_i (u_iᵀδ)² / ‖δ‖²``, ``δ = Lᵀ(t - c)``; the least over templates, the phrase's
        last token and end token, and the concept's states.
        """
        hard = self.effort > _FREE
        held = self.outputs[:, hard] * self.effort[hard].sqrt()
        least = torch.ones(len(start), len(goals))
        for t in range(start.shape[1]):
            ends = [goals[:, t, aim] for aim in range(goals.shape[2])]
            stuck = [end @ held for end in ends]
            for role in range(_READ):
                here = start[:, t, role]
                lifted = here @ held
                for end, left in zip(ends, stuck, strict=True):
                    share = _distances(lifted, left) / _distances(here, end)
                    least = torch.minimum(least, share)
        return least

    def change(self, states: Float[Tensor, "*b d"]) -> Float[Tensor, "*b"]:
        """``‖M̂c‖_G/‖c‖_G`` of each state."""
        size = (states.float() @ self.root).norm(dim=-1).clamp_min(1e-30)
        return (states.float() @ self.move.T).norm(dim=-1) / size


def gains(
    start: Float[Tensor, "n t r d"],
    shift: Float[Tensor, "n t r d"],
    concepts: Float[Tensor, "k t a d"],
) -> Float[Tensor, "n k"]:
    """How surely each phrase lands on each concept, 0…1; see the module.

    Phrases, their displacements and concepts are as seen through the layers (`EditMap`).
    """
    templates = start.shape[1]
    mean = torch.zeros(len(start), len(concepts))
    top = torch.zeros_like(mean)
    for t in range(templates):
        gain = torch.zeros_like(mean)
        for role in range(_READ):
            here = start[:, t, role]
            gain += _nearest_gain(here, here + shift[:, t, role], concepts[:, t]) / _READ
        mean += gain.clamp_min(0) / templates
        top = torch.maximum(top, gain)
    return (mean + top) / 2


def own_words(phrases: Sequence[str], concepts: Sequence[str]) -> Tensor:
    """Which concepts a phrase itself names: it holds their head noun, bool, ``(n, k)``."""
    nouns = [concept.split()[-1] for concept in concepts]
    column = {noun: i for i, noun in enumerate(dict.fromkeys(nouns))}
    held = torch.zeros(len(phrases), len(column), dtype=torch.bool)
    for row, phrase in enumerate(phrases):
        for word in phrase.split():
            if word in column:
                held[row, column[word]] = True
    return held[:, [column[noun] for noun in nouns]]


def _nearest_gain(before: Tensor, after: Tensor, goals: Tensor) -> Tensor:
    """Gain towards whichever of a concept's states it comes nearest to, ``(n, k)``."""
    best = torch.full((len(before), len(goals)), -torch.inf)
    for aim in range(goals.shape[1]):
        ratio = _distances(after, goals[:, aim]) / _distances(before, goals[:, aim])
        best = torch.maximum(best, 1 - ratio.sqrt())
    return best


def _distances(points: Tensor, goals: Tensor) -> Tensor:
    """Squared distances; as products, which costs a tenth of differences."""
    lengths = points.square().sum(dim=1)[:, None] + goals.square().sum(dim=1)
    return torch.addmm(lengths, points, goals.T, alpha=-2).clamp_min_(_LEAST)
