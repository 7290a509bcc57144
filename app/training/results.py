"""What a finished run holds: predictions on the validation images, and metrics.json."""

import statistics
from typing import Any, TextIO

import keras
import numpy as np

from app.classifier_files import load_classifier
from app.config.training import TrainingConfig
from app.data.dataset import Split
from app.data.views import VIEWS
from app.evaluation.calibration import calibrate, calibrated_metrics
from app.evaluation.logits import passes_saved, split_logits
from app.evaluation.metrics import chance_remark
from app.evaluation.records import count_test_evaluation, evaluations_on_test
from app.files import atomic_path, write_json
from app.machine import peak_memory_megabytes
from app.paths import shown
from app.reading import Row, best_row, read_record
from app.records import DatasetRecord, MetricsRecord
from app.runs import Run
from app.training.freezing import Freezing
from app.training.setup import Job
from models.inspect import count_macs, count_weights
from models.losses import SparseCrossentropy


def _accuracy(logits: np.ndarray, split: Split) -> float:
    return float(np.mean(logits.argmax(-1) == split.labels))


def _measured(classifier: keras.Model, split: Split, logits: np.ndarray, training: TrainingConfig) -> Row:
    """Return loss, with the L2 terms that `val_loss` holds too, and accuracy."""
    loss = SparseCrossentropy(softmax_before_loss=training.loss.softmax_before_loss)
    penalty = sum(float(term) for term in classifier.losses)
    return {"loss": float(loss(split.labels, logits)) + penalty, "accuracy": _accuracy(logits, split)}


def _validated(classifier: keras.Model, split: Split, logits: np.ndarray, training: TrainingConfig) -> Row:
    return {f"val_{key}": each for key, each in _measured(classifier, split, logits, training).items()}


def write_results(run: Run, job: Job, classifier: keras.Model) -> None:
    """Write predictions.npz and, as the last file of the training, metrics.json.

    The test split, where validation came from training, is evaluated with the best checkpoint.
    `classifier` is the job's as the last epoch validated it.
    """
    experiment, dataset, progress = job.experiment, job.dataset, job.progress
    training = experiment.training
    size = max(1, training.batch_size // job.replicas.count)  # which one device has room for
    last = progress.rows[-1]
    best = best_row(progress.rows, training.monitor)
    last_logits = best_logits = split_logits(classifier, dataset.val, size)
    selected = classifier
    if best is not None and best is not last:
        selected = load_classifier(run.best_model)
        # What was frozen in that epoch adds no L2 term.
        Freezing(experiment.model, selected.network).hold(int(best["epoch"]) - 1)
        best_logits = split_logits(selected, dataset.val, size)
    both = {"best": best_logits, "last": last_logits}
    if read_record(run.dataset, DatasetRecord).fingerprints_before:  # their epochs may have had other images
        best = best and best | _validated(selected, dataset.val, best_logits, training)
        last = last | _validated(classifier, dataset.val, last_logits, training)
    with atomic_path(run.predictions) as temporary:
        arrays = {f"{which}_logits": logits for which, logits in both.items()}
        np.savez(temporary, allow_pickle=False, labels=dataset.val.labels, **arrays)
    on_test = experiment.dataset.validates_on_test
    calibration = {}
    if not on_test:
        fitted = {which: calibrate(dataset.val.labels, logits) for which, logits in both.items()}
        calibration = {which: content for which, content in fitted.items() if content}
    kind, below = experiment.evaluation.test_time_views, experiment.evaluation.views_below
    views: dict[str, Any] | None = None
    if kind != "none":
        headline, plain = (classifier, last_logits) if on_test else (selected, best_logits)
        logits = split_logits(headline, dataset.val, size, VIEWS[kind], plain, below)
        views = {"views": kind, "val_accuracy": _accuracy(logits, dataset.val)}
        if below is not None:
            views["views_below"] = below
            views["val_passes"] = len(plain) * len(VIEWS[kind])
            views["val_passes_saved"] = passes_saved(plain, VIEWS[kind], below)
    test: dict[str, Any] | None = None
    if dataset.test is not None:
        logits = split_logits(selected, dataset.test, size)
        test = {
            "checkpoint": "best",
            "images": len(dataset.test),
            **_measured(selected, dataset.test, logits, training),
        }
        if of_best := calibration.get("best"):
            of = of_best["temperature"], of_best["unsure_below"]
            test["calibrated"] = calibrated_metrics(dataset.test.labels, logits, *of)
        if (run.evaluations / "test_evaluations.json").is_file():  # else metrics.json says of the only one
            count_test_evaluation(run, test["accuracy"], checkpoint="best", epochs=len(progress.rows))
        if views:
            logits = split_logits(selected, dataset.test, size, VIEWS[kind], logits, below)
            views["test_accuracy"] = _accuracy(logits, dataset.test)
    network = classifier.network
    job.begin(progress.epoch - 1)  # trainable is what was trained in the last epoch
    trainable = count_weights(job.classifier.network.trainable_weights)
    validation = "test" if on_test else "validation"
    selected_on = validation if training.monitor.startswith("val_") else "training"
    write_json(
        run.metrics,
        {
            "experiment": experiment.name,
            "run": run.name,
            "monitor": training.monitor,
            "validation": dataset.split_rule,
            "weights": training.weights,
            # Where validation is the test split, picking its best epoch would be picking on the test set.
            "headline": {
                "which": "last epoch" if on_test else "best epoch",
                **(last if on_test else best or last),
            },
            "final": last,
            "best": best and {"selected_on": selected_on, **best},
            "test": test,
            "test_time_views": views,
            "calibration": calibration,
            "reference": experiment.reference.model_dump(exclude_none=True) if experiment.reference else None,
            "parameters": {
                "total": network.count_params(),
                "trainable": trainable,
                "non_trainable": network.count_params() - trainable,
                "macs": count_macs(network),
            },
            "timing": {
                "epochs": len(progress.rows),
                "epochs_planned": training.num_epochs,
                "seconds": progress.feature_seconds + sum(row["seconds"] for row in progress.rows),
                "seconds_per_epoch": statistics.median(row["seconds"] for row in progress.rows),
                "images_per_second": statistics.median(row["images_per_second"] for row in progress.rows),
                "resumed_epochs": progress.resumed_epochs,
                "peak_memory_megabytes": max(peak_memory_megabytes(), progress.peak_memory_megabytes),
            },
        },
    )


def print_results(run: Run, out: TextIO) -> None:
    """Print the accuracies of a finished run, and the paths of its curves and its report."""
    metrics = read_record(run.metrics, MetricsRecord)
    last, best, name = metrics.final, metrics.best, metrics.split
    lines = [f"{name} accuracy {last.val_accuracy:.4f} at the last epoch ({last.epoch}){metrics.averaged}"]
    if best:
        where = f"at epoch {best.epoch} (by {metrics.monitor})"
        lines.append(f"{metrics.best_words}: {best.val_accuracy:.4f} {where}")
    if views := metrics.test_time_views:
        line = f"{name} accuracy {views.val_accuracy:.4f}"
        if views.test_accuracy is not None:
            line += f", test accuracy {views.test_accuracy:.4f}"
        if views.views_below is not None:
            line += f"; below {views.views_below:g}: "
            line += f"{views.val_passes_saved:,} of {views.val_passes:,} passes saved"
        lines.append(f"with test-time views ({views.views}): {line}")
    if metrics.test:
        count = len(evaluations_on_test(run))
        times = "once" if count == 1 else f"{count} times, which makes it optimistic"
        lines.append(f"test accuracy {metrics.test.accuracy:.4f} (best checkpoint, evaluated {times})")
    if remark := chance_remark(run.path.parent.name, metrics, read_record(run.dataset, DatasetRecord)):
        lines.append(remark)
    lines += [f"curves {shown(run.curves)}", f"report {shown(run.report)}"]
    print("\n".join(lines), file=out, flush=True)
