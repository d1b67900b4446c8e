"""Loaders without their own bars and notes: an error is one line, and a sweep loads often."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def quiet() -> Iterator[None]:
    """Hides progress bars and warnings of diffusers and transformers within the block."""
    from diffusers.utils import logging as diffusers_logging
    from transformers.utils import logging as transformers_logging

    loggers = (diffusers_logging, transformers_logging)
    before = [(logger.is_progress_bar_enabled(), logger.get_verbosity()) for logger in loggers]
    try:
        for logger in loggers:
            logger.disable_progress_bar()
            logger.set_verbosity_error()
        yield
    finally:
        for logger, (bar, verbosity) in zip(loggers, before, strict=True):
            logger.set_verbosity(verbosity)
            if bar:
                logger.enable_progress_bar()
