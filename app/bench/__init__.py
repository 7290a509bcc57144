"""`make bench`: how fast an experiment trains on this machine, and how that compares; see README.md."""
