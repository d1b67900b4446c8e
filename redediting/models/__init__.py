"""Models: cards, the one loader, architectures, text projections; see `Model`."""

from redediting.models.loading import load
from redediting.models.model import Component, Model
from redediting.models.sampler import Sampler

__all__ = ["Component", "Model", "Sampler", "load"]
