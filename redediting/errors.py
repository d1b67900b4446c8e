"""Errors a user can cause: one line that names the value and the remedy.

The command line prints the line on standard error and exits with code 2.
"""


class RedEditingError(Exception):
    """Base of every error that is the input's fault rather than the program's."""


class ModelError(RedEditingError):
    """A model, card or folder that cannot be loaded or edited."""


class PromptError(RedEditingError):
    """A prompt or phrase that the text encoder cannot take."""


class RebindingError(RedEditingError):
    """A trigger/target pair that makes no sense."""


class PatchError(RedEditingError):
    """A patch that is damaged or was made for other weights."""


class MethodError(RedEditingError):
    """An unknown editing method or an option it does not have."""


class DetectorError(RedEditingError):
    """An unknown detector, an option it does not have, or a subject it cannot examine."""


class MetricError(RedEditingError):
    """An unknown metric or an option it does not have."""


class ConfigError(RedEditingError):
    """A configuration or an argument with an unknown key, a wrong type or a value out of range."""


class ImageError(RedEditingError):
    """An image that cannot be read, or a list of images that makes no sense."""


class OutputError(RedEditingError):
    """An output folder that cannot be written."""


class WorldError(RedEditingError):
    """A missing or damaged part of the embedded world."""
