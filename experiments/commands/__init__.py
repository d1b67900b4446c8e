"""The commands of ``redediting``, one file each: a frozen dataclass of flags with a ``run``."""
