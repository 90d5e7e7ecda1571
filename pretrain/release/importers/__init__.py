"""Checkpoints published by others, opened as ours and written as theirs."""
