"""Weights-only forensics: the shared-factor test, trigger recovery, target naming."""

from defenses.audit.audit import Audit, Evidence, audit, examine
from defenses.audit.base_free import BaseFree, audit_base_free
from defenses.audit.recovery import Recovery, Trigger, recover
from defenses.audit.shared_factor import Comparison, Factor, Fit, compare
from defenses.audit.source import SuspectTensors, base_weights, read_suspect
from defenses.audit.thresholds import CUTOFFS, Cutoffs
from defenses.audit.two_matrix import TwoFit, fit_two
from defenses.audit.vocabulary import States, Vocabulary

__all__ = [
    "CUTOFFS",
    "Audit",
    "BaseFree",
    "Comparison",
    "Cutoffs",
    "Evidence",
    "Factor",
    "Fit",
    "Recovery",
    "States",
    "SuspectTensors",
    "Trigger",
    "TwoFit",
    "Vocabulary",
    "audit",
    "audit_base_free",
    "base_weights",
    "compare",
    "examine",
    "fit_two",
    "read_suspect",
    "recover",
]
