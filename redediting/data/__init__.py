"""Packaged data: lexicon and model cards."""
