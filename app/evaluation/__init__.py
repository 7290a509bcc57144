"""From labels and logits to metrics, files and pictures."""
