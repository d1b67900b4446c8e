"""The audit experiment: suspects, controls, persistence, adaptive attackers, repairs."""
