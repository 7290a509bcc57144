"""The variables of a compiled classifier: all that training changes, read and assigned."""

from collections.abc import Sequence

import keras
import numpy as np


def inner_optimizer(model: keras.Model) -> keras.Optimizer:
    """Return the optimizer that takes a model's steps: with float16, the one that loss scaling wraps."""
    return getattr(model.optimizer, "inner_optimizer", model.optimizer)


def variable_groups(model: keras.Model) -> dict[str, list[keras.Variable]]:
    """Return all variables that training changes, with their present values.

    Optimizer and metrics must have been built.
    """
    if keras.backend.backend() == "jax":
        model.jax_state_sync()  # inside fit the JAX trainer keeps the values outside the variables
    metrics = model.metrics_variables
    own = {id(variable) for variable in metrics}
    return {
        "model": [variable for variable in model.variables if id(variable) not in own],
        "optimizer": model.optimizer.variables,
        "metrics": metrics,
    }


def state_variables(model: keras.Model) -> list[keras.Variable]:
    """Return all variables that training changes but those of the metrics."""
    groups = variable_groups(model)
    return [*groups["model"], *groups["optimizer"]]


def non_finite_variable(model: keras.Model) -> str | None:
    """Return the name of a variable of network or optimizer that holds NaN or infinity, if one does."""
    for variable in state_variables(model):
        value = variable.numpy()
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            return variable.path
    return None


def metric_values(model: keras.Model) -> list[np.ndarray]:
    """Return copies of the metric variables, e.g. before validation resets them."""
    return [variable.numpy() for variable in model.metrics_variables]


def assign(variable: keras.Variable, value: np.ndarray) -> None:
    """Give a variable a value on this worker, without the others.

    Keras' own assignment on JAX has all workers compare what they assign.
    """
    if keras.backend.backend() == "jax":
        import jax

        layout = variable.value.sharding
        value = jax.make_array_from_callback(value.shape, layout, lambda index: value[index])
    variable.assign(value)


def restore_metrics(model: keras.Model, values: Sequence[np.ndarray]) -> None:
    """Put metric values back; `fit` resets them at the start of every epoch."""
    for variable, value in zip(model.metrics_variables, values, strict=True):
        variable.assign(value)
