"""An experiment with each of its pieces taken out in turn."""
