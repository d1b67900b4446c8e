"""What is read: a self-contained page of a run, and the figures that the README quotes."""
