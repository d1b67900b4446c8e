"""Models: cards, the one loader, architectures, text projections; see `redediting.load`."""
