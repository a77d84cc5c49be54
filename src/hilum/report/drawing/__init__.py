"""Arrays -> Figures and pictures."""
