"""Muon: steps of orthogonal matrices for kernels, and another optimizer for everything else.

Jordan 2024, https://kellerjordan.github.io/posts/muon/, as airbench94_muon.py of his cifar10-airbench has it:
before its step a kernel is scaled to the norm sqrt(filters), so that it needs no weight decay.

Differences from the source: matrices are multiplied in the variables' float32, not in bfloat16; dense kernels
but the last are trained so too. In Keras' layouts filters are the last axis, where PyTorch has them first.
"""

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Any

import keras
from keras import ops

from models.limits import BelowOne, Limits

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # chosen in the source for a steep slope at 0


@dataclasses.dataclass(frozen=True)
class KernelSteps:
    """How kernels are trained: the arguments of `muon` in an experiment.

    Attributes:
        momentum: Fraction of the sum of gradients that is kept from one step to the next.
        nesterov: Whether the step looks ahead along the momentum.
        newton_schulz_steps: Iterations towards an orthogonal matrix.
    """

    momentum: BelowOne = 0.6
    nesterov: bool = True
    newton_schulz_steps: Annotated[int, Limits(minimum=1, maximum=20)] = 3


def with_muon(optimizer: type, kernel_rate: Any, steps: KernelSteps) -> type:
    """Return the optimizer class with Muon's steps for the kernels.

    Args:
        optimizer: A class made by `with_patterns`, for all other variables.
        kernel_rate: The `LearningRate` of kernels.
        steps: How they are trained.
    """

    class Muon(optimizer):
        def build(self, variables):
            self.kernel_rate = kernel_rate
            kernels = {id(kernel) for kernel in kernels_of(variables)}
            self.is_kernel = [id(variable) in kernels for variable in variables]
            super().build(variables)
            self.kernel_momentums = [
                self.add_variable_from_reference(variable, name="muon") if is_kernel else None
                for variable, is_kernel in zip(variables, self.is_kernel, strict=True)
            ]

        def add_optimizer_variables(self, trainable_variables, name, initializer="zeros"):
            """Make variables for all but the kernels; Keras has None, too, where there is none."""
            pairs = zip(trainable_variables, self.is_kernel, strict=True)
            others = [variable for variable, is_kernel in pairs if not is_kernel]
            made = super().add_optimizer_variables(others, name, initializer)
            lists = [
                [None if is_kernel else next(each) for is_kernel in self.is_kernel]
                for each in map(iter, [made] if isinstance(name, str) else made)
            ]
            return lists[0] if isinstance(name, str) else tuple(lists)

        def _use_weight_decay(self, variable):
            is_kernel = self.is_kernel[self._get_variable_index(variable)]
            return not is_kernel and super()._use_weight_decay(variable)

        def update_step(self, gradient, variable, learning_rate):
            index = self._get_variable_index(variable)
            if not self.is_kernel[index]:
                super().update_step(gradient, variable, learning_rate)
                return
            gradient, momentum = ops.cast(gradient, variable.dtype), self.kernel_momentums[index]
            velocity = ops.add(ops.multiply(momentum, steps.momentum), gradient)
            self.assign(momentum, velocity)
            if steps.nesterov:
                velocity = ops.add(gradient, ops.multiply(velocity, steps.momentum))
            filters = num_filters(variable.shape)
            matrix = orthogonalized(ops.reshape(velocity, (-1, filters)), steps.newton_schulz_steps)
            scale = filters**0.5 / ops.maximum(_norm(variable), 1e-7)
            rate = ops.cast(self.kernel_rate(self._iterations) * self.factors[index], variable.dtype)
            step = ops.multiply(ops.reshape(matrix, variable.shape), rate)
            self.assign(variable, ops.subtract(ops.multiply(variable, scale), step))

    return Muon


def kernels_of(variables: Sequence[keras.Variable]) -> list[keras.Variable]:
    """Return the kernels of convolutions and dense layers, but for the last, which is the head's."""
    kernels = [v for v in variables if v.path.endswith("/kernel") and len(v.shape) in (2, 4)]
    return kernels[:-1]


def num_filters(shape: Sequence[int]) -> int:
    """Return the outputs of a kernel; a depthwise one, (height, width, channels, 1), has one a channel."""
    return shape[-2] if len(shape) == 4 and shape[-1] == 1 else shape[-1]


def orthogonalized(matrix: Any, steps: int) -> Any:
    """Return a matrix with the singular vectors of `matrix` and singular values near 1, by Newton-Schulz."""
    is_tall = matrix.shape[0] > matrix.shape[1]
    x = ops.transpose(matrix) if is_tall else matrix
    x = x / (_norm(x) + 1e-7)  # no singular value is above 1
    a, b, c = COEFFICIENTS
    for _ in range(steps):
        gram = ops.matmul(x, ops.transpose(x))
        x = a * x + ops.matmul(b * gram + c * ops.matmul(gram, gram), x)
    return ops.transpose(x) if is_tall else x


def _norm(values: Any) -> Any:
    return ops.sqrt(ops.sum(ops.square(values)))
