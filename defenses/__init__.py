"""Defences against edited text-to-image models.

``detectors`` (one file a detector: a score per prompt and its cost), one attention recorder that
serves them all, ``audit`` (forensics from the weights alone: the shared-factor test and trigger
recovery) and ``repair`` (reversal and mitigation, each of which returns a
:class:`redediting.patch.Patch`).

Arrows run one way: ``defenses`` may import ``redediting`` and never ``experiments``.
"""
