"""After a run whose numbers blew up: train up to that step again, and say in which layer it began."""

import itertools
import math
from typing import Any, TextIO

import keras
from keras import ops

from app.doctor.layer_trace import FirstNonFinite, find_in_step, find_in_weights
from app.preflight import as_trained
from app.reading import read_record
from app.records import FailureRecord
from app.runs import Run
from app.training.checkpoint import load_state, restore_state
from app.training.optimizers import follow_history
from app.training.resume import differences
from app.training.setup import Job, prepare
from app.wording import aligned
from models.variables import non_finite_variable

SHOWN_LAYERS = 8
HUGE = 1e3  # weights and pixels are far below


def replay(run: Run, out: TextIO) -> None:
    """Replay the step at which a run stopped because loss or weights were no longer finite.

    Nothing in the run folder is changed.

    Raises:
        UserError: The run's files or its data cannot be read.
    """
    if not run.failure.is_file():
        print(f"{run.name}: this run did not blow up (it has no {run.failure.name})", file=out)
        return
    failure = read_record(run.failure, FailureRecord)
    job, start = _prepare(run, out)
    target = (failure.epoch - 1) * job.steps_per_epoch + failure.step
    print(f"{run.name}: {failure.what} in {_place(job, target - 1)}", file=out)
    if target <= start:
        print("The newest state was saved after that step: there is nothing to replay", file=out)
        return
    since = f"from the state after {_place(job, start - 1)}" if start else "from the beginning"
    print(f"training {target - start} steps again, {since}", file=out, flush=True)
    # What shows in a step may have begun in the update before it.
    before = max(start, target - 2)
    _train(job, start, before - start)
    if non_finite_variable(job.classifier):
        watch = _UntilBroken()
        _train(_prepare(run)[0], start, before - start, [watch])
        before = start + watch.done - 1
        job, _ = _prepare(run)
        _train(job, start, before - start)
    for position in range(before, target):
        first = _examine(job, position, out)
        if first:
            _report(job, position, first, out)
            return
    print(
        "The replay stayed finite. The run was trained on another machine or with other versions, or its "
        "steps do not give the same bits twice; try training.precision=float32, a lower learning rate, "
        "or training.determinism=strict",
        file=out,
    )


def _prepare(run: Run, out: TextIO | None = None) -> tuple[Job, int]:
    """Bring a run to its newest state; tell on `out` what is no longer as it was.

    Returns:
        The run's experiment with the state restored, and the steps that this state has behind it.
    """
    state, damaged = load_state(run)
    job = prepare(as_trained(run), from_state=state is not None)
    if out:
        for line in itertools.chain(*differences(run, job, job.describe_environment())):
            print(f"{run.name}: {line}; the replay may differ", file=out)
        for line in damaged:
            print(line, file=out)
    if state is None:
        return job, 0
    restore_state(job.classifier, state)
    job.progress = state.progress
    follow_history(job)
    return job, job.progress.epoch * job.steps_per_epoch + job.progress.step


def _train(job: Job, position: int, steps: int, callbacks: Any = ()) -> float:
    """Train `steps` steps from a position, in steps over all epochs, as the run did; return a mean loss.

    Validation is left out: it changes neither weights nor random state.
    """
    loss, end = 0.0, position + steps
    while position < end:
        epoch, step = divmod(position, job.steps_per_epoch)
        until = min(end, job.begin(epoch) * job.steps_per_epoch)
        history = job.classifier.fit(
            job.batches(epoch, step),
            steps_per_epoch=until - position,
            epochs=1,
            shuffle=False,
            verbose=0,
            callbacks=[*job.step_callbacks(position), *callbacks],
        )
        loss, position = float(history.history["loss"][-1]), until
        if job.classifier.stop_training:
            break
    return loss


class _UntilBroken(keras.callbacks.Callback):
    """Counts steps and stops at the first that leaves weights that are not finite."""

    done = 0

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        """Look at every variable."""
        self.done += 1
        self.model.stop_training = non_finite_variable(self.model) is not None


def _examine(job: Job, position: int, out: TextIO) -> FirstNonFinite | None:
    """Do one step layer by layer, then as the run did it, and return what first was not finite."""
    job.begin(position // job.steps_per_epoch)
    batch = next(iter(job.batches(*divmod(position, job.steps_per_epoch))))
    calls, first = find_in_step(job.classifier, *map(ops.convert_to_numpy, batch))
    if first:
        return first
    loss = _train(job, position, 1)
    if not math.isfinite(loss):
        what = "the loss of the compiled step; done layer by layer, the same step stays finite"
        return FirstNonFinite("loss", what, calls, len(calls) - 1)
    first = find_in_weights(job.classifier, calls)
    if first is None:
        print(f"{_place(job, position)}: loss {loss:.4g}, all values finite", file=out, flush=True)
    return first


def _place(job: Job, position: int) -> str:
    epoch, step = divmod(position, job.steps_per_epoch)
    return f"epoch {epoch + 1}, step {step + 1} of {job.steps_per_epoch}"


def _report(job: Job, position: int, first: FirstNonFinite, out: TextIO) -> None:
    """Print what was found, how large the values around it were, and what to do."""
    print(f"{_place(job, position)}: not finite first: {first.what}", file=out)
    index = first.index
    begin = max(0, index if first.stage == "gradient" else index - SHOWN_LAYERS + 1)
    rows = [("layer", "kind", "weights", "outputs", "gradients")]
    rows += [
        (
            call.path,
            type(call.layer).__name__,
            f"{call.weight_size:.3g}" if call.layer.weights else "",
            f"{call.output_size:.3g}",
            "" if call.gradient_size is None else f"{call.gradient_size:.3g}",
        )
        for call in first.calls[begin : max(index + 1, begin + SHOWN_LAYERS)]
    ]
    print("largest absolute values before the update:", file=out)
    for line in aligned(rows, right=(2, 3, 4)):
        print(f"  {line}", file=out)
    print(f"What to do: {_advice(job, position, first)}", file=out, flush=True)


def _advice(job: Job, position: int, first: FirstNonFinite) -> str:
    """Return the most likely cause and its remedy."""
    precision = job.experiment.training.precision
    slower = (
        f"lower optimizer.learning_rate ({job.learning_rate(position):.3g} in this step), warm it up "
        "(warmup_epochs), or limit gradients (optimizer.clipnorm: 1.0)"
    )
    sizes = [size for call in first.calls[: first.index] for size in (call.weight_size, call.output_size)]
    sizes.append(first.calls[first.index].weight_size)
    largest = max(filter(math.isfinite, sizes), default=0.0)
    if first.stage == "images":
        return "check the arguments of this layer: images are not finite before the network sees them"
    if first.stage == "update":
        return f"the step was too large: {slower}"
    if precision != "float32" and largest > HUGE:
        return f"values leave the range of {precision}: set training.precision: float32"
    if largest > HUGE:
        return f"values up to {largest:.3g} came before, so earlier steps were too large: {slower}"
    if first.stage == "loss":
        return f"look at the labels, and at penalties that the network adds to the loss; else {slower}"
    if first.stage == "gradient":
        return f"look there for a root, logarithm or division, whose slope at 0 has no bound; else {slower}"
    return (
        "the values before it are of ordinary size, so look at what this layer computes: a division by zero, "
        "a root or logarithm of 0 or less, an exponential?"
    )
