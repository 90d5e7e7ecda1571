"""Scaling laws: a ladder of runs, what it costs, the fit to its points, and the report."""
