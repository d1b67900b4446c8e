"""Evaluation of edits: inspection without images, ranking, measured results."""
