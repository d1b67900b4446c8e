"""Metrics: what counts as success, how far images moved, and how sure we are of it."""
