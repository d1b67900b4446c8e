"""Parts of `experiments.audit`: suspects, controls, persistence, adaptive attackers, repairs."""
