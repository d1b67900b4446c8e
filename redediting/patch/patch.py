"""A patch: what an edit changes in a model, and nothing else.

Closed-form edits are stored as *terms*: ``ΔW_l = Σ_t scale_{t,l} · W_l · left_t · right_t``, two
thin factors for the whole model; where ``left`` is a single row, ones stand in the place of W_l,
so that every row of ``ΔW_l`` is the same. Other edits store the new tensors (``dense``).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from redediting.algebra.multiplier import Multiplier, RowShift
from redediting.errors import PatchError
from redediting.io import atomic_folder
from redediting.models.model import Component, Model
from redediting.patch.files import MANIFEST, Manifest, Provenance, read_files, write_files

_MERGED = "redediting.json"  # marks a merged model, which plain diffusers does not read


@dataclass(frozen=True)
class Term:
    """One shared low-rank change."""

    left: Tensor  # float32, shape ``(d, r)``, or ``(1, r)`` for a row shift
    right: Tensor  # float32, shape ``(r, d)``
    scales: Mapping[str, float]  # factor of each parameter that the term changes, by name

    @classmethod
    def scaled(cls, multiplier: Multiplier | RowShift, scales: Mapping[str, float]) -> Term:
        """A multiplier or row with a factor for each named parameter, rounded to fp32."""
        if isinstance(multiplier, RowShift):
            return cls(torch.ones(1, 1), multiplier.row.float()[None].contiguous(), dict(scales))
        thin = multiplier.compress(tolerance=1e-8)
        return cls(thin.left.float().contiguous(), thin.right.float().contiguous(), dict(scales))

    @classmethod
    def shared(cls, multiplier: Multiplier, names: Sequence[str]) -> Term:
        """The same multiplier for every named parameter."""
        return cls.scaled(multiplier, dict.fromkeys(names, 1.0))


@dataclass(frozen=True)
class Rewrite:
    """A clean parameter, what writes its new value in place, and that value in fp64."""

    parameter: Tensor
    write: Callable[[Tensor], None]
    exact: Callable[[Tensor], Tensor]


class AppliedPatch:
    """A change in force; as a context manager it is reverted on exit.

    Adding and subtracting a change is not exact in floating point, so the originals are kept.
    The two figures below are computed when asked for, one parameter at a time.
    """

    def __init__(self, changes: Sequence[Rewrite]) -> None:
        self._changes = tuple(changes)
        self._originals: list[Tensor] | None = []
        with torch.no_grad():
            for change in self._changes:
                self._originals.append(change.parameter.detach().clone())
                change.write(change.parameter)

    @cached_property
    def footprint(self) -> float:
        """``‖ΔW‖_F / ‖W‖_F`` over the changed parameters, in exact arithmetic."""
        return self._figures[0]

    @cached_property
    def cast_error(self) -> float:
        """``‖W' - written(W')‖_F / ‖ΔW‖_F``: arithmetic and rounding in the model's dtype."""
        return self._figures[1]

    def revert(self) -> None:
        """Restores every original bit; a second call does nothing."""
        if self._originals is None:
            return
        with torch.no_grad():
            for change, original in zip(self._changes, self._originals, strict=True):
                change.parameter.copy_(original)
        self._originals = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.revert()

    @cached_property
    def _figures(self) -> tuple[float, float]:
        changed = size = missed = 0.0
        originals = self._originals  # reverted, the parameters themselves are clean
        originals = originals or [change.parameter.detach() for change in self._changes]
        with torch.no_grad():
            for change, original in zip(self._changes, originals, strict=True):
                exact, written = change.exact(original), original.clone()
                change.write(written)
                changed += float((exact - original.double()).square().sum())
                size += float(original.double().square().sum())
                missed += float((exact - written.double()).square().sum())
        footprint = (changed / size) ** 0.5 if size else 0.0
        return footprint, (missed / changed) ** 0.5 if changed else 0.0


@dataclass(frozen=True)
class Patch:
    """A change of one component of a model.

    Attributes:
        base: fingerprint of what it was computed for (`Model.base_fingerprint`).
        provenance: method, options, rebindings.
        terms: shared low-rank changes; none and no dense tensors is the clean control.
        dense: new values of whole parameters, by name.
        target: the component it changes.

    Example:
        >>> import redediting as rd
        >>> model = rd.load("world")
        >>> rd.attacks.EvilEdit().compute(model, rd.Rebinding("old dog", "zebra")).save(f"{tmp}/p")
        PosixPath('...')
        >>> patch = rd.Patch.load(f"{tmp}/p")
        >>> patch
        Patch(eviledit: 'old dog' → 'zebra', 14 matrices, rank ≤ ...)
        >>> with patch.apply(model) as applied:
        ...     applied.footprint > 0
        True
    """

    base: str
    provenance: Provenance
    terms: tuple[Term, ...] = ()
    dense: Mapping[str, Tensor] = field(default_factory=dict)
    target: Component = "unet"

    def __repr__(self) -> str:
        pairs = self.provenance.rebindings
        said = f": {pairs[0]['trigger']!r} → {pairs[0]['target']!r}" if pairs else ""
        more = f" and {len(pairs) - 1} more" if len(pairs) > 1 else ""
        rank = sum(term.left.shape[1] for term in self.terms)
        change = "dense" if self.dense else f"rank ≤ {rank}"
        return f"Patch({self.provenance.method}{said}{more}, {len(self.names)} matrices, {change})"

    @property
    def names(self) -> frozenset[str]:
        """Parameters that the patch changes."""
        return frozenset(self.dense).union(*(term.scales for term in self.terms))

    def apply(self, model: Model) -> AppliedPatch:
        """Writes the edited weights into the model, in place; returns a handle that reverts.

        Raises:
            PatchError: the model's weights are not those the patch was computed for.
            ModelError: the model has no such component.
        """
        parameters = dict(model.component(self.target).named_parameters())
        found = model.base_fingerprint(self.target, self.names)
        if found != self.base:
            raise PatchError(
                f"expected the weights {self.base[:12]}, got {found[:12]}: the patch was made "
                "for another model, or one is applied already; load or revert to the base model"
            )
        return self.rewrite(parameters)

    def rewrite(self, parameters: Mapping[str, Tensor]) -> AppliedPatch:
        """Writes into given clean parameters, in place; `apply` is this after a check of the base.

        A low-rank change takes two thin products in the parameter's own dtype, fp32 for half
        precision, and one pass over the weights; beside it there is a copy of what is changed.
        `PatchError` where a parameter is missing or has another shape.
        """
        for name in sorted(self.names):
            self._check(name, parameters.get(name))
        write = _Writer(self)
        return AppliedPatch([
            Rewrite(parameters[name], partial(write, name), partial(self.new_weight, name))
            for name in sorted(self.names)
        ])  # fmt: skip

    def new_weight(self, name: str, weight: Tensor) -> Tensor:
        """Edited value of a parameter in fp64, shape ``(m, d)``, from its clean value."""
        if name in self.dense:
            return self.dense[name].to(weight.device, torch.float64)
        exact = weight.double()
        total = exact.clone()
        for term in self.terms:
            if name in term.scales:
                left, right = (f.to(weight.device, torch.float64) for f in (term.left, term.right))
                total += term.scales[name] * (_read(exact, left) @ right)
        return total

    def save(self, folder: str | Path) -> Path:
        """Writes ``patch.safetensors``, ``patch.json`` and ``README.md``, all or nothing.

        An earlier patch in the folder is replaced, with everything beside it. `OutputError` where
        the folder cannot be written or holds something else.
        """
        tensors = {f"dense.{name}": tensor for name, tensor in self.dense.items()}
        for i, term in enumerate(self.terms):
            tensors |= {f"term.{i}.left": term.left, f"term.{i}.right": term.right}
        with atomic_folder(Path(folder), marker=MANIFEST) as temporary:
            write_files(temporary, self._manifest(), tensors)
        return Path(folder)

    @classmethod
    def load(cls, folder: str | Path) -> Patch:
        """Reads a patch folder; `PatchError` where files are missing, truncated or altered."""
        manifest, tensors = read_files(Path(folder))
        try:
            terms = tuple(
                Term(tensors[f"term.{i}.left"], tensors[f"term.{i}.right"], scales)
                for i, scales in enumerate(manifest.terms)
            )
            dense = {name: tensors[f"dense.{name}"] for name in manifest.dense}
        except KeyError as error:
            raise PatchError(
                f"expected tensor {error} in the patch {str(folder)!r}, got none; make it anew"
            ) from error
        return cls(manifest.base, manifest.provenance, terms, dense, manifest.target)

    def merge(self, model: Model, folder: str | Path) -> Path:
        """Writes the edited model as a model that plain diffusers loads; reverts afterwards.

        Raises `PatchError` as `apply` does, and `OutputError` as `save` does.
        """
        manifest = self._manifest()
        with self.apply(model), atomic_folder(Path(folder), marker=_MERGED) as temporary:
            model.save(temporary)
            (temporary / _MERGED).write_text(manifest.model_dump_json(indent=2), "utf-8")
            manifest.card(merged=True).save(temporary / "README.md")
        return Path(folder)

    def _manifest(self) -> Manifest:
        scales = [dict(term.scales) for term in self.terms]
        return Manifest(target=self.target, base=self.base, provenance=self.provenance,
                        terms=scales, dense=sorted(self.dense))  # fmt: skip

    def _check(self, name: str, weight: Tensor | None) -> None:
        if weight is None:
            raise PatchError(f"expected a parameter of the model, got {name!r}; make it anew")
        for term in self.terms:
            widths = {"left": term.left.shape[0], "right": term.right.shape[1]}
            d = weight.shape[-1]
            if name in term.scales and not (widths["left"] in (1, d) and widths["right"] == d):
                raise PatchError(
                    f"expected factors of width {d} for {name}, got {widths}; make the patch anew"
                )
        if name in self.dense and self.dense[name].shape != weight.shape:
            raise PatchError(
                f"expected {name} of shape {tuple(weight.shape)}, "
                f"got {tuple(self.dense[name].shape)}; make it anew"
            )


def _read(weight: Tensor, left: Tensor) -> Tensor:
    """``W left``, or ``1 left`` of a row shift."""
    return (weight if len(left) > 1 else weight.new_ones(len(weight), 1)) @ left


class _Writer:
    """``W ← W + Σ_t scale_{t,l} (W left_t) right_t`` in place; factors are brought over once."""

    def __init__(self, patch: Patch) -> None:
        self._patch = patch
        self._moved: dict[tuple[torch.device, torch.dtype], list[tuple[Tensor, Tensor]]] = {}

    def __call__(self, name: str, weight: Tensor) -> None:
        if name in self._patch.dense:
            weight.copy_(self._patch.dense[name])
        elif torch.finfo(weight.dtype).bits < 32:
            wide = weight.float()
            self(name, wide)
            weight.copy_(wide)
        else:
            terms = zip(self._patch.terms, self._factors(weight), strict=True)
            used = [(term.scales[name], *f) for term, f in terms if name in term.scales]
            read = [_read(weight, left) for _, left, _ in used]  # all of the clean weight
            for (scale, _, right), values in zip(used, read, strict=True):
                weight.addmm_(values, right, alpha=scale)

    def _factors(self, weight: Tensor) -> list[tuple[Tensor, Tensor]]:
        place = (weight.device, weight.dtype)
        if place not in self._moved:
            terms = self._patch.terms
            self._moved[place] = [(term.left.to(*place), term.right.to(*place)) for term in terms]
        return self._moved[place]
