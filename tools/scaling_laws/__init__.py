"""Scaling experiments: a ladder of runs, laws fitted to them, and a report."""
