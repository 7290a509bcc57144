"""Published weights: reading their files, and matching their arrays to a network's variables."""
