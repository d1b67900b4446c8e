"""Experiments: one runner, one row schema, several configurations; they only wire."""

import redediting as redediting  # first of all: makes torchvision importable beside a CPU torch
