"""The worker processes of one training: who they are, and the line between them."""
