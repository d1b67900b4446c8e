"""What of a suspect is the base's, what is not, and what could not be told: nothing is assumed.

Every tensor, configuration, tokenizer and scheduler of every component of the base is compared.
A rounded copy (fp32, fp16, bf16; fp8 where each number is the rounded one) counts as equal. What a
carried component lacks is *missing*; what cannot be read, has a number format that cannot be
compared or a name that the base does not know is *unreadable*. Both keep an audit from saying
"clean". A component that the suspect's format does not carry at all is *not_carried*.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from defenses.audit.rounding import rounding
from defenses.audit.thresholds import CUTOFFS
from redediting.inventory import Part, check_projections, components, settings_of
from redediting.io import one_line
from redediting.models.model import Model

Status = Literal["equal", "changed", "missing", "unreadable", "not_carried"]
_COARSE = tuple(
    getattr(torch, name)
    for name in ("float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz")
)


@dataclass(frozen=True)
class Coverage:
    """What became of some tensors of a component.

    Attributes:
        component: of the model; ``other`` for what the base has no component for.
        status: see the module.
        tensors: how many; a configuration, a tokenizer or a scheduler counts as one.
        reason: of the first that is ``changed`` beside its tensors or ``unreadable``.
    """

    component: str
    status: Status
    tensors: int
    reason: str = ""


@dataclass(frozen=True)
class Survey:
    """A suspect beside its base.

    Attributes:
        projections: the suspect's text projections under the base's names and in its order; where
            one is missing, unreadable or not finite the base's.
        others: what changed beside the projections, by name.
        broken: tensors with numbers that are not finite.
        coverage: of every component.
    """

    projections: Mapping[str, Tensor]
    others: tuple[str, ...]
    broken: tuple[str, ...]
    coverage: tuple[Coverage, ...]

    @property
    def incomplete(self) -> bool:
        """Whether something of a carried component was missing or could not be told."""
        return any(part.status in ("missing", "unreadable") for part in self.coverage)

    @property
    def scope(self) -> str:
        """What was compared, and what the suspect's format does not carry."""
        carried = [c.component for c in self.coverage if c.status != "not_carried"]
        absent = [c.component for c in self.coverage if c.status == "not_carried"]
        said = f"compared: {', '.join(dict.fromkeys(carried))}"
        return said + (f"; not carried: {', '.join(absent)}" if absent else "")


def survey(base: Model, suspect: Mapping[str, Part]) -> Survey:
    """Compares a suspect's components (`redediting.inventory.read_suspect`) with the base's.

    Raises:
        ModelError: text projections of another architecture.
    """
    denoiser = base.layout.denoiser
    if denoiser in suspect:
        check_projections(base, suspect[denoiser])
    trusted = base.weights()
    projections = dict(trusted)
    others: list[str] = []
    broken: list[str] = []
    coverage: list[Coverage] = []
    for name, component in components(base).items():
        state = component.state_dict() if isinstance(component, nn.Module) else {}
        part = suspect.get(name)
        if part is None:
            coverage.append(Coverage(name, "not_carried", max(1, len(state))))
            continue
        counts: Counter[Status] = Counter()
        reasons: dict[Status, str] = {}
        for key, weight in state.items():
            status, reason, tensor = _compared(weight, part, key)
            counts[status] += 1
            if reason:
                reasons.setdefault(status, f"{key}: {reason}")
            if status == "changed" and tensor is not None and not _finite(tensor):
                broken.append(f"{name}.{key}")
            elif key in trusted and name == denoiser:
                if tensor is not None and status in ("equal", "changed"):
                    projections[key] = tensor
                continue
            if status == "changed":
                others.append(f"{name}.{key}")
        if part.settings is not None:
            differing = _differences(settings_of(component), part.settings)
            counts["changed" if differing else "equal"] += 1
            if differing:
                others.append(f"{name} settings")
                reasons["changed"] = f"settings: {', '.join(differing[:3])}"
        if part.problem and not part.tensors:
            counts = Counter({"missing" if part.problem.startswith("no ") else "unreadable":
                              max(1, len(state))})  # fmt: skip
            reasons = dict.fromkeys(counts, part.problem)
        if part.unknown:
            counts["unreadable"] += len(part.unknown)
            reasons.setdefault("unreadable", f"unknown to the base: {part.unknown[0]}")
        coverage += [Coverage(name, s, n, reasons.get(s, "")) for s, n in counts.items()]
    if "other" in suspect:
        part = suspect["other"]
        reason = f"{part.problem}: {part.unknown[0]}"
        coverage.append(Coverage("other", "unreadable", len(part.unknown), reason))
    return Survey(projections, tuple(sorted(others)), tuple(broken), tuple(coverage))


def _compared(weight: Tensor, part: Part, key: str) -> tuple[Status, str, Tensor | None]:
    """Status and reason of one tensor, and the tensor in the base's type."""
    if key not in part.tensors:
        return "missing", "", None
    try:
        tensor = part.tensors[key]().detach().cpu()
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, KeyError) as error:
        return "unreadable", one_line(error), None
    own = weight.detach().cpu()
    if own.shape != tensor.shape:
        return "changed", f"shape {tuple(tensor.shape)} instead of {tuple(own.shape)}", None
    if own.is_floating_point() != tensor.is_floating_point() or tensor.is_complex():
        return "unreadable", f"numbers of type {tensor.dtype}", None
    if not own.is_floating_point():
        return ("equal" if torch.equal(own.to(tensor.dtype), tensor) else "changed"), "", tensor
    if tensor.dtype in _COARSE:
        found = tensor.float()
        if torch.equal(own.to(tensor.dtype).float(), found):
            return "equal", "", own  # its rounding is exact: nothing is left to be examined
        return "unreadable", f"{tensor.dtype} that is not the base's own rounding", None
    if not _finite(tensor):
        return "changed", "numbers that are not finite", tensor
    if own.ndim == 0:
        return ("equal" if own == tensor else "changed"), "", tensor
    within = rounding(own.flatten(1) if own.ndim > 1 else own[None],
                      tensor.flatten(1) if own.ndim > 1 else tensor[None],
                      slack=CUTOFFS.rounding).within  # fmt: skip
    return ("equal" if within else "changed"), "", tensor


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(tensor.isfinite().all())


def _differences(base: Mapping[str, object], suspect: Mapping[str, object]) -> list[str]:
    """Settings that differ; one that only one side knows counts."""
    missing = object()
    keys = sorted({*base, *suspect})
    return [key for key in keys if base.get(key, missing) != suspect.get(key, missing)]
