"""Training of the embedded world, stage by stage; driven by :mod:`experiments.training.recipe`."""
