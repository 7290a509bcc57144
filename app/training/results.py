"""What a finished run holds: predictions on the validation images, and metrics.json."""

import statistics
import sys
from collections.abc import Sequence
from typing import TextIO

import keras
import numpy as np

from app.config import Experiment
from app.data.datasets import Dataset, Split
from app.data.pipeline import evaluation_batches
from app.data.views import VIEWS, View
from app.paths import shown
from app.reading import read_record
from app.records import MetricsRecord
from app.runs import Run, atomic_path, write_json
from app.training.checkpoint import Progress
from app.training.history import best_row
from app.training.losses import SparseCrossentropy
from app.training.saved import load_classifier
from models.layers import quick_inference
from models.macs import count_macs, count_weights

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]


def split_logits(
    classifier: keras.Model,
    split: Split,
    batch_size: int,
    views: Sequence[View] = VIEWS["none"],
    plain: np.ndarray | None = None,
) -> np.ndarray:
    """Return float32 logits (images, classes) in the order of the split, averaged over `views`.

    `plain` are those of the images as they are, where they are known already.
    """

    def logits(view: View) -> np.ndarray:
        if plain is not None and not view.flip and not view.shift_pixels:
            return plain
        return classifier.predict(evaluation_batches(split, batch_size, view), verbose=0)

    with quick_inference():
        return np.sum([np.float32(view.weight) * logits(view) for view in views], axis=0)


def _accuracy(logits: np.ndarray, split: Split) -> float:
    return float(np.mean(logits.argmax(-1) == split.labels))


def write_results(
    run: Run, experiment: Experiment, dataset: Dataset, classifier: keras.Model, progress: Progress
) -> None:
    """Write predictions.npz and, as the last file of a run, metrics.json.

    The test split, where validation came from training, is evaluated here and only here, with the best
    checkpoint.

    Args:
        run: The run folder.
        experiment: What was trained.
        dataset: The data it was trained on.
        classifier: The classifier as the last epoch left it.
        progress: The finished history.
    """
    training = experiment.training
    last = progress.rows[-1]
    best = best_row(progress.rows, training.monitor, training.mode)
    last_logits = best_logits = split_logits(classifier, dataset.val, training.batch_size)
    selected = classifier
    if best is not None and best is not last:
        selected = load_classifier(run.best_model)
        best_logits = split_logits(selected, dataset.val, training.batch_size)
    with atomic_path(run.predictions) as temporary:
        np.savez(
            temporary,
            allow_pickle=False,
            labels=dataset.val.labels,
            best_logits=best_logits,
            last_logits=last_logits,
        )
    on_test = experiment.dataset.validation == "test"
    kind = experiment.evaluation.test_time_views
    views = None
    if kind != "none":
        headline, plain = (classifier, last_logits) if on_test else (selected, best_logits)
        logits = split_logits(headline, dataset.val, training.batch_size, VIEWS[kind], plain)
        views = {"views": kind, "val_accuracy": _accuracy(logits, dataset.val)}
    test = None
    if dataset.test is not None:
        logits = split_logits(selected, dataset.test, training.batch_size)
        loss = SparseCrossentropy(softmax_before_loss=training.loss.softmax_before_loss)
        penalty = sum(float(term) for term in selected.losses)  # L2 terms, which val_loss holds too
        test = {
            "checkpoint": "best",
            "images": len(dataset.test),
            "loss": float(loss(dataset.test.labels, logits)) + penalty,
            "accuracy": _accuracy(logits, dataset.test),
        }
        if views:
            logits = split_logits(selected, dataset.test, training.batch_size, VIEWS[kind], logits)
            views["test_accuracy"] = _accuracy(logits, dataset.test)
    network = classifier.network
    trainable = count_weights(network.trainable_weights)
    write_json(
        run.metrics,
        {
            "experiment": experiment.name,
            "run": run.name,
            "monitor": training.monitor,
            "mode": training.mode,
            "validation": dataset.split_rule,
            # Where validation is the test split, picking its best epoch would be picking on the test set.
            "headline": {
                "which": "last epoch" if on_test else "best epoch",
                **(last if on_test else best or last),
            },
            "final": last,
            "best": best and {"selected_on": "test" if on_test else "validation", **best},
            "test": test,
            "test_time_views": views,
            "reference": experiment.reference.model_dump(exclude_none=True) if experiment.reference else None,
            "parameters": {
                "total": network.count_params(),
                "trainable": trainable,
                "non_trainable": network.count_params() - trainable,
                "macs": count_macs(network),
            },
            "timing": {
                "epochs": len(progress.rows),
                "epochs_planned": training.epochs,
                "seconds": sum(row["seconds"] for row in progress.rows),
                "seconds_per_epoch": statistics.median(row["seconds"] for row in progress.rows),
                "images_per_second": statistics.median(row["images_per_second"] for row in progress.rows),
                "resumed_epochs": progress.resumed_epochs,
                "peak_memory_megabytes": peak_memory_megabytes(),
            },
        },
    )


def peak_memory_megabytes() -> int | None:
    """Return the largest resident memory of this process so far; None where the system does not tell."""
    if resource is None:
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (1e6 if sys.platform == "darwin" else 1e3))  # bytes there, kilobytes elsewhere


def print_results(run: Run, out: TextIO) -> None:
    """Print accuracies of a finished run and where its curves and its page lie."""
    metrics = read_record(run.metrics, MetricsRecord)
    last, best, name = metrics.final, metrics.best, metrics.split
    lines = [f"{name} accuracy {last.val_accuracy:.4f} at the last epoch ({last.epoch})"]
    if best:
        label = "best on test" if metrics.on_test else "best"
        lines.append(f"{label}: {best.val_accuracy:.4f} at epoch {best.epoch} (by {metrics.monitor})")
    if views := metrics.test_time_views:
        told = f"{name} accuracy {views.val_accuracy:.4f}"
        if views.test_accuracy is not None:
            told += f", test accuracy {views.test_accuracy:.4f}"
        lines.append(f"with test-time views ({views.views}): {told}")
    if metrics.test:
        lines.append(f"test accuracy {metrics.test.accuracy:.4f} (best checkpoint, evaluated once)")
    lines += [f"curves {shown(run.curves)}", f"report {shown(run.report)}"]
    print("\n".join(lines), file=out, flush=True)
