"""Attacks x detectors x kinds of trigger: what is asked, measured, tabled and shown."""
