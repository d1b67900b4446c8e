"""Parts of `experiments.audit.measure`: suspects, controls, persistence, adaptive attackers, repairs."""
