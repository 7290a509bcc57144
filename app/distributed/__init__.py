"""Training on several devices or hosts; the ordinary run needs none of it."""
