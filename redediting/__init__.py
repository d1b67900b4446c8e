"""redediting: text-to-image backdoors made by model editing, reproduced, measured and caught."""

from redediting import _torchvision as _torchvision  # must come before open_clip / transformers

__version__ = "0.1.0"
