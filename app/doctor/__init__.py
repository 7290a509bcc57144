"""Checks of an experiment before its run, and the replay of a step whose loss blew up."""
