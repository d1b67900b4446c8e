"""Attack success and what it costs: methods x pairs x seeds beside the clean model."""
