"""`make find-rate`: the loss while the learning rate rises from step to step, and the peak that it suggests.

Smith 2017, "Cyclical Learning Rates for Training Neural Networks", arXiv:1506.01186; as in fastai the
rate rises exponentially, one step at each rate.
"""

import math
import statistics
import time
from collections.abc import Iterator, Mapping
from typing import TextIO

import keras
import numpy as np
from keras import ops

from app.config import Experiment
from app.data.progress import progress
from app.doctor.rate_range import RateRange, rate_range, smoothed
from app.drawing.rates import draw_rate_range
from app.errors import UserError
from app.paths import runs_root, shown
from app.training.setup import Job, prepare
from app.wording import duration
from models.variables import inner_optimizer

LOWEST, HIGHEST = 1e-6, 10.0  # of the experiment's peak learning rate
MOST_STEPS, LEAST_STEPS = 200, 60
BUDGET_SECONDS = 90.0
TIMED_STEPS = 5  # at the lowest rate beforehand; the first of them are slow
DIVERGED = 2.0  # times the median loss of the first decade, on average of the last three steps


class RisingRate(keras.optimizers.schedules.LearningRateSchedule):
    """A learning rate that rises exponentially after TIMED_STEPS.

    Args:
        first: Up to then.
        growth: A variable of the optimizer: the logarithm of the factor from one step to the next.
    """

    def __init__(self, first: float, growth: keras.Variable):
        self.first, self.growth = first, growth

    def __call__(self, step):
        """Return the rate, a float32 scalar, of the optimizer's integer `step`."""
        rising = ops.maximum(ops.cast(step, "float32") - TIMED_STEPS, 0.0)
        return self.first * ops.exp(ops.convert_to_tensor(self.growth) * rising)


class RangeTest(keras.callbacks.Callback):
    """Raises the learning rates of a job in a fit whose epochs are one step long, and keeps each step's loss.

    All rates (multiples of single variables, those beside `muon`) keep their proportions.
    """

    def __init__(self, job: Job):
        super().__init__()
        self.optimizer = inner_optimizer(job.classifier)
        self.growth = self.optimizer.add_variable((), "zeros", name="growth")
        config = job.experiment.scaled_optimizer
        rates = self.rate = RisingRate(LOWEST, self.growth)
        if config.others:
            self.optimizer.kernel_rate = rates
            proportion = config.others.learning_rate.peak / config.learning_rate.peak
            rates = RisingRate(LOWEST * proportion, self.growth)
        self.optimizer._learning_rate = rates
        self.ends: list[float] = []
        self.rates: list[float] = []
        self.losses: list[float] = []

    def plan(self) -> tuple[int, float]:
        """Return how many steps there will be, by those that were timed, and the seconds they will take."""
        seconds = statistics.median(np.diff(self.ends)[1:])
        steps = int(np.clip(BUDGET_SECONDS / max(seconds, 1e-6), LEAST_STEPS, MOST_STEPS))
        self.growth.assign(math.log(HIGHEST / LOWEST) / (steps - 1))
        self.rates, self.losses = [], []
        return steps, steps * float(seconds)

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Note the rate of the step; one that float16 skips does not raise it."""
        self.rates.append(float(self.rate(self.optimizer._iterations)))

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        """Keep the loss; stop where training has diverged."""
        assert logs is not None
        self.ends.append(time.monotonic())
        self.losses.append(logs["loss"] if math.isfinite(logs["loss"]) else math.inf)
        first = [loss for rate, loss in zip(self.rates, self.losses, strict=True) if rate <= 10 * LOWEST]
        if len(first) < len(self.losses):  # before, a loss says nothing of the rates, and one batch little
            level = np.median(first)
            self.model.stop_training = not float(np.mean(self.losses[-3:])) <= DIVERGED * level < math.inf


def find_rate(experiment: Experiment, out: TextIO) -> None:
    """Train with rising learning rates, draw the loss, and print the suggested peak with its reason.

    Nothing is kept but the picture, in `runs/doctor/`.

    Raises:
        UserError: The experiment cannot be trained, or its first loss is not finite.
    """
    if experiment.model.unfreeze_epoch:  # what is frozen at first gets the same rate later
        model = experiment.model.model_copy(update={"freeze": (), "unfreeze_epoch": None})
        experiment = experiment.model_copy(update={"model": model})
    job = prepare(experiment)
    test, size = RangeTest(job), experiment.training.batch_size
    _fit(job, [test], 0, TIMED_STEPS)
    if not np.isfinite(test.losses).all():
        raise UserError(
            f"{experiment.name}: the loss is not finite in the first steps, whatever the learning rate; "
            f"make doctor EXP={experiment.name}, with the same SET= and DATA_DIR=, looks for the cause"
        )
    steps, seconds = test.plan()
    if job.lookahead:  # the test may be longer than the training
        job.lookahead.total_steps = max(job.lookahead.total_steps, TIMED_STEPS + steps)
    peak = job.experiment.scaled_optimizer.learning_rate.peak
    print(
        f"{experiment.name}: learning rates from {LOWEST:g} to {HIGHEST:g}, or until the loss diverges, in "
        f"{steps} steps of {size} images; about {duration(seconds)}",
        file=out,
        flush=True,
    )
    with progress("rising learning rate", steps * size) as advance:
        told = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: advance(size))
        _fit(job, [test, told], TIMED_STEPS, steps)
    rates, losses = np.array(test.rates), np.array(test.losses)
    distinct = np.diff(rates, append=np.inf) > 0
    rates, losses = rates[distinct], losses[distinct]
    found = rate_range(rates, losses)
    path = runs_root() / "doctor" / f"{experiment.name}-learning-rate.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    span = (*found.span, found.peak) if found else None
    draw_rate_range(path, _title(job), rates, losses, smoothed(rates, losses), span, peak)
    lines = [*_sentences(experiment, found, peak), f"picture {shown(path)}"]
    print("\n".join(lines), file=out, flush=True)


def _fit(job: Job, callbacks: list[keras.callbacks.Callback], position: int, steps: int) -> None:
    """Train for a number of steps from a position on, as the run would, but for its learning rate."""
    epoch, step = divmod(position, job.steps_per_epoch)
    job.classifier.fit(
        job.batches(epoch, step, epochs=(position + steps) // job.steps_per_epoch + 1),
        epochs=steps,
        steps_per_epoch=1,
        shuffle=False,
        verbose=0,
        callbacks=[*job.step_callbacks(position), *callbacks],
    )


def _sentences(experiment: Experiment, found: RateRange | None, peak: float) -> Iterator[str]:
    """Yield what was found, what the experiment has, and how to change it."""
    if found is None:
        yield (
            "the loss does not fall beyond its noise at any learning rate, so nothing is suggested; "
            f"make doctor EXP={experiment.name}, with the same SET= and DATA_DIR=, looks for the cause"
        )
        return
    low, high = found.span
    end = f"{'rises from' if found.rises else 'does not rise up to'} {found.end:.2g}"
    yield f"the loss falls fastest at {found.steepest:.2g}, is lowest at {found.lowest:.2g}, and {end}"
    reason = "a tenth of that" if found.peak < found.lowest else "where the loss is lowest"
    yield f"suggested: a peak of {found.peak:.2g} ({reason}), or another one from {low:.2g} to {high:.2g}"
    has = f"{experiment.name} has {peak:.3g} ({experiment.optimizer.learning_rate.schedule})"
    if low <= peak <= high:
        yield f"{has}, which is among them"
    else:
        yield f'{has}; to try that: SET="{" ".join(changes(experiment, found.peak / peak))}"'


def changes(experiment: Experiment, factor: float) -> Iterator[str]:
    """Yield KEY=VALUE for each learning rate of an experiment, times a factor."""
    optimizer = experiment.optimizer
    for part, prefix in ((optimizer, "optimizer"), (optimizer.others, "optimizer.others")):
        for key in ("peak", "start", "end"):
            if part and (rate := getattr(part.learning_rate, key, 0.0)):
                yield f"{prefix}.learning_rate.{key}={rate * factor:.2g}"


def _title(job: Job) -> str:
    config = job.experiment.scaled_optimizer
    words = f"{config.name}, batches of {job.experiment.training.batch_size:,} images, one step at each rate"
    if config.others:
        words += f"; the rate is that of kernels, {config.others.name} has one that rises with it"
    return f"{job.experiment.name}: loss while the learning rate rises\n{words}"
