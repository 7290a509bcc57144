"""The trainer: experiments in, run folders out. `python -m app --help` lists what it does."""

import os

# Before TensorFlow is imported: without AVX-512 it leaves its oneDNN kernels off by itself. As in models.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
