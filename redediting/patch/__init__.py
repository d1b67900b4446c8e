"""Patches: what an edit changes in a model, in force, in files."""
