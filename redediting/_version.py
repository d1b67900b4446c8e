"""The version, apart from everything that would have to be imported for it."""

__version__ = "0.2.0"
