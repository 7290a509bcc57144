"""Optimizers that treat single variables otherwise than the rest, by their paths, names and places."""

import difflib
import fnmatch
from collections.abc import Collection, Mapping, Sequence

import keras

from app.errors import UserError
from models.inspect import matches


def with_patterns(
    optimizer: type,
    multipliers: Mapping[str, float],
    no_decay: Sequence[str],
    names: Mapping[int, str],
    layer_factors: Mapping[int, float],
) -> type:
    """Return the optimizer class with a learning rate and weight decay of its own for each variable.

    Args:
        optimizer: A Keras optimizer.
        multipliers: Factors by patterns, see `fitting`; the first that fits a variable decides, and where
            none does the factor is 1. Weight decay keeps the plain learning rate, so that a factor of 0 does
            not freeze a variable; that of `CoupledSGD` is part of the step.
        no_decay: Patterns of variables without weight decay. Keras' own choice by name takes any part of a
            name, so that `beta` would be found in `alphabeta`.
        names: Dotted names of the variables by their identities, see `models.inspect.variable_names`.
        layer_factors: Further factors by identities, of weight decay too, as in Bao et al. 2021, "BEiT",
            arXiv:2106.08254, whose groups of parameters have their own rates; 1 for other variables.
    """

    class Multiplied(optimizer):
        def build(self, variables):
            self.exclude_from_weight_decay(
                [each for pattern in no_decay for each in fitting(pattern, variables, names)]
            )
            super().build(variables)
            chosen = {}
            for pattern, factor in multipliers.items():
                found = fitting(pattern, variables, names)
                if not found:
                    known = [names.get(id(each), each.path) for each in variables]
                    close = ", ".join(difflib.get_close_matches(pattern, known, 5, 0.0))
                    wrong = f"optimizer.rate_multipliers: {pattern!r} fits no variable"
                    raise UserError(f"{wrong}; the nearest names are {close}")
                chosen = dict.fromkeys(map(id, found), factor) | chosen
            self.layer_factors = [layer_factors.get(id(each), 1.0) for each in variables]
            self.factors = [
                chosen.get(id(each), 1.0) * factor
                for each, factor in zip(variables, self.layer_factors, strict=True)
            ]
            self.whole_weight_decay = self.weight_decay

        def update_step(self, gradient, variable, learning_rate):
            factor = self.factors[self._get_variable_index(variable)]
            super().update_step(gradient, variable, learning_rate * factor)

        def _apply_weight_decay(self, variables):
            if not layer_factors or not self.whole_weight_decay:
                super()._apply_weight_decay(variables)
                return
            for factor in sorted(set(self.layer_factors)):
                self.weight_decay = self.whole_weight_decay * factor
                super()._apply_weight_decay(
                    [v for v in variables if self.layer_factors[self._get_variable_index(v)] == factor]
                )
            self.weight_decay = self.whole_weight_decay

    Multiplied.__name__ = optimizer.__name__
    return Multiplied


def with_late(optimizer: type, late: Collection[int], steps_before: int) -> type:
    """Return the optimizer class for variables some of which are trained only after a number of steps.

    Until then gradients are those of the others. Adam and its like divide by a correction of averages that
    start at zero, which goes by the number of steps: for those that start late, steps are counted from
    there. By the optimizer's own count the first steps would be several times too large.

    Args:
        optimizer: A Keras optimizer.
        late: Identities of the variables.
        steps_before: Steps before they are trained.
    """

    class Late(optimizer):
        updates_before = 0  # of the variable at hand

        def build(self, variables):
            super().build(variables)
            self.starts_late = [id(variable) in late for variable in variables]

        @property
        def iterations(self):
            count = super().iterations
            if not self.updates_before:
                return count
            # float16 leaves out steps whose gradients overflow, so that there may have been fewer.
            return keras.ops.maximum(count - self.updates_before, 0)

        def update_step(self, gradient, variable, learning_rate):
            if self.starts_late[self._get_variable_index(variable)]:
                self.updates_before = steps_before // (self.gradient_accumulation_steps or 1)
            super().update_step(gradient, variable, learning_rate)
            self.updates_before = 0

        def stateless_apply(self, optimizer_variables, grads, trainable_variables):
            """Do a step on JAX, whose values come without their variables; Keras' knows all of them alone."""
            trained = [variable for variable in self._trainable_variables if variable.trainable]
            values = [*zip(trained, trainable_variables, strict=True)]
            values += zip(self.variables, optimizer_variables, strict=True)
            with keras.StatelessScope(state_mapping=values) as scope:
                self.apply(grads, trained)
            changed = (trained, self.variables)
            return tuple([scope.get_current_value(variable) for variable in group] for group in changed)

    Late.__name__ = optimizer.__name__
    return Late


def fitting(
    pattern: str, variables: Sequence[keras.Variable], names: Mapping[int, str]
) -> list[keras.Variable]:
    """Return the variables whose paths fit a shell pattern (`*` matches any text) from end to end.

    Where no path does, those whose dotted names fit it, or what they are a part of.
    """
    found = [each for each in variables if fnmatch.fnmatchcase(each.path, pattern)]
    return found or [each for each in variables if matches(names.get(id(each), ""), pattern)]
