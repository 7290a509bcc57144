"""Optimizers that treat single variables otherwise than the rest, by patterns of their paths."""

import fnmatch
from collections.abc import Mapping, Sequence

import keras

from app.errors import UserError


def with_multipliers(optimizer: type, multipliers: Mapping[str, float]) -> type:
    """Return the optimizer class with a learning rate of its own for each variable.

    Args:
        optimizer: A Keras optimizer.
        multipliers: Factors by shell patterns of variable paths (`*` matches any text); the first that fits
            a path decides, and where none does the factor is 1. Weight decay keeps the plain learning
            rate, so that a factor of 0 does not freeze a variable; that of `CoupledSGD` is part of the step.
    """

    class Multiplied(optimizer):
        def build(self, variables):
            super().build(variables)
            fitting = [[p for p in multipliers if fnmatch.fnmatchcase(v.path, p)] for v in variables]
            unused = [p for p in multipliers if not any(p in patterns for patterns in fitting)]
            if unused:
                raise UserError(
                    f"optimizer.rate_multipliers: no variable's path fits {unused[0]!r}; "
                    f"the trained variables are {', '.join(variable.path for variable in variables)}"
                )
            self.factors = [multipliers[patterns[0]] if patterns else 1.0 for patterns in fitting]

        def update_step(self, gradient, variable, learning_rate):
            factor = self.factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

    Multiplied.__name__ = optimizer.__name__
    return Multiplied


def with_no_decay(optimizer: type, patterns: Sequence[str]) -> type:
    """Return the optimizer class with weight decay for some variables alone.

    Args:
        optimizer: A Keras optimizer.
        patterns: Shell patterns of the paths of variables without it. Keras' own choice by name takes any
            part of a name, so that `beta` would be found in `alphabeta`.
    """

    class Selective(optimizer):
        def build(self, variables):
            self.exclude_from_weight_decay([v for v in variables if fits(v, patterns)])
            super().build(variables)

    Selective.__name__ = optimizer.__name__
    return Selective


def fits(variable: keras.Variable, patterns: Sequence[str]) -> bool:
    """Return whether a variable's path fits one of the shell patterns, from end to end."""
    return any(fnmatch.fnmatchcase(variable.path, pattern) for pattern in patterns)
