"""The trainer: experiments in, run folders out. `python -m app --help` lists what it does."""
