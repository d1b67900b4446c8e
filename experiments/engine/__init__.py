"""What experiments are built of: specifications, the runner, run folders."""
