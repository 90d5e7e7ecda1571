"""Kills the workers of a captioning at random moments, and looks whether anybody can tell."""
