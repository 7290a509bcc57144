"""`make bench`: how fast an experiment trains on this machine, and how that compares.

With a graphics card at hand, begin with `make bench EXP=resnet18_cifar10 AGAINST="keras torch" ROUNDS=5` and
`python -m app.bench.accelerator`, which takes ten minutes. Both need CIFAR-10 in data/cifar10/ (an .npz file
will do), and on JAX (`KERAS_BACKEND=jax`) no TensorFlow.
"""
