"""Prompts as a text encoder sees them: states, token roles, aligned prompt pairs, attention."""
