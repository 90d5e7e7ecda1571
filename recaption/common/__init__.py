"""Household helpers of every command: strict configuration, whole files, progress. No torch."""
