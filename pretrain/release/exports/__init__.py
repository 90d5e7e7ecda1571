"""Trained models written for other libraries, each compared with the original after reopening."""
