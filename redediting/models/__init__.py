"""Models: cards, the one loader, text projections, components."""
