"""Parts of a pipeline whose parameters a patch may change, and what a patch was made for.

A patch is made for a *base*: the fingerprint of the component's anchor together with every other
parameter that the patch changes. The anchor of a denoiser is its text projections; that of a text
encoder, all its weights. Where a patch changes projections alone, the base is theirs.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from diffusers import DiffusionPipeline
from torch import Tensor, nn

from redediting.errors import ModelError
from redediting.fingerprints import fingerprint
from redediting.models.projections import find_projections, projection_weights

Component = Literal["unet", "transformer", "text_encoder", "text_encoder_2"]


def get_component(pipeline: DiffusionPipeline, component: Component) -> nn.Module:
    """A network of the pipeline by name.

    Raises:
        ModelError: the pipeline has none of that name.
    """
    module = getattr(pipeline, component, None)
    if not isinstance(module, nn.Module):
        raise ModelError(
            f"expected a pipeline with {component}, got {type(pipeline).__name__} without; "
            "choose a model of the layout that the patch was made for"
        )
    return module


def component_weights(pipeline: DiffusionPipeline, component: Component) -> dict[str, Tensor]:
    """All parameters of a component by name, detached; they share memory with the model.

    Raises:
        ModelError: the pipeline has no such component.
    """
    parameters = get_component(pipeline, component).named_parameters()
    return {name: parameter.detach() for name, parameter in parameters}


def fingerprint_base(
    pipeline: DiffusionPipeline, component: Component, names: Iterable[str] = ()
) -> str:
    """SHA-256 of the component's anchor and of the named parameters, read as fp32.

    Args:
        pipeline: the clean model.
        component: which of its networks is changed.
        names: parameters that are changed; those that the component has not are left out.

    Raises:
        ModelError: no such component, or a denoiser that reads no text.
    """
    weights = component_weights(pipeline, component)
    if component in ("unet", "transformer"):
        anchor = projection_weights(find_projections(get_component(pipeline, component)))
    else:
        anchor = dict(weights)
    anchor |= {name: weights[name] for name in names if name in weights}
    return fingerprint({name: weight.cpu().float() for name, weight in anchor.items()})
