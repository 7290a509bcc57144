"""Sweeps: many trials of one experiment with other settings, and what they say."""
