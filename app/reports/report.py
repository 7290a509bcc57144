"""`report.html`: everything about one run on one page, written from its folder and its images."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from app.config import Experiment
from app.data.dataset import Dataset
from app.data.datasets import load_dataset
from app.drawing.curves import draw_curves
from app.errors import UserError
from app.evaluation.metrics import chance_remark
from app.evaluation.records import (
    PICTURES,
    EvaluationRecord,
    evaluation_content,
    evaluation_folder,
    evaluations_on_test,
    list_evaluations,
    which_epoch,
    write_evaluation,
)
from app.paths import shown
from app.preflight import as_trained
from app.reading import read_history, read_predictions, read_record
from app.records import CalibratedRecord, DatasetRecord, EnvironmentRecord, MetricsRecord
from app.reports import html as page
from app.reports.cells import percent, seconds_text, source_accuracies, source_sentence, train_command
from app.runs import Run, detour, load_run_experiment
from app.wording import counted, duration

SKIPPED_NAMED = 5  # of the images left out


def write_report(run: Run, dataset: Dataset | None = None) -> Path:
    """Write a run's report.html, and the pictures of its validation images that are missing.

    Args:
        run: A finished run.
        dataset: The data it was trained on; loaded if it is not at hand. Where it cannot be had, or has
            changed, the page says so and does without pictures of images.

    Returns:
        The page.

    Raises:
        UserError: The run is not finished, or a file of it cannot be read.
    """
    if not run.finished:
        raise UserError(
            f"{run.name}: this run is not finished, so there is nothing to report; its curves so far are in "
            f"{shown(run.curves)}. Finish it with make resume RUN={run.argument}"
        )
    experiment, metrics = load_run_experiment(run), read_record(run.metrics, MetricsRecord)
    if dataset is None:  # at the end of training they are drawn already
        draw_curves(run, experiment, read_history(run.history), metrics.timing.resumed_epochs)
    remark = _evaluate_validation(run, experiment, metrics, dataset)
    title = f"{experiment.name}: {experiment.model.name} on {experiment.dataset.name}"
    page.write_page(run.report, title, _parts(run, experiment, metrics, remark))
    return run.report


def _evaluate_validation(
    run: Run, experiment: Experiment, metrics: MetricsRecord, dataset: Dataset | None
) -> str | None:
    """Evaluate the stored predictions where that was not done yet; return why it cannot be done, if so."""
    folder = evaluation_folder(run, "validation", metrics.checkpoint)
    evaluated = folder / "evaluation.json"
    trained_on = read_record(run.dataset, DatasetRecord).fingerprint
    if dataset is None and all((folder / name).is_file() for name in (*PICTURES, evaluated.name)):
        found = read_record(evaluated, EvaluationRecord)
        if found.epoch == metrics.headline.epoch and found.fingerprint in (None, trained_on):
            return None
    try:
        if dataset is None:
            dataset = load_dataset(as_trained(run).dataset)
        if dataset.fingerprint != trained_on:
            raise UserError("the images have changed since the run was trained")
        labels, logits = read_predictions(run.predictions, metrics.checkpoint, len(dataset.class_names))
        if not np.array_equal(labels, dataset.val.labels):
            raise UserError(f"{shown(run.predictions)} is of other images")
    except UserError as error:
        return str(error)
    of_logits = dataset.val, logits, dataset.class_names
    of = run, metrics, metrics.checkpoint, metrics.split
    content = evaluation_content(*of, *of_logits, fingerprint=dataset.fingerprint)
    (folder / "predictions.npz").unlink(missing_ok=True)  # perhaps of an epoch before
    write_evaluation(folder, content, *of_logits)
    return None


def _parts(run: Run, experiment: Experiment, metrics: MetricsRecord, remark: str | None) -> Iterator[str]:
    """Yield the sections of the page."""
    dataset = read_record(run.dataset, DatasetRecord)
    environment = read_record(run.environment, EnvironmentRecord)
    yield page.paragraph(experiment.description)
    yield page.paragraph(f"Run {run.name}", faint=True)
    yield page.tiles(_tiles(experiment, metrics))
    counts, parameters = dataset.num_images, metrics.parameters
    yield page.paragraph(
        f"{experiment.model.name}, {parameters.total:,} parameters ({parameters.trainable:,} trained), "
        f"on {dataset.source}: {counts.train:,} training and {counts.val:,} validation images of "
        f"{' x '.join(map(str, dataset.image_shape))}, {len(dataset.class_names)} classes. "
        f"Validation: {dataset.split_rule}."
    )
    if experiment.reference:
        yield page.paragraph(source_sentence(experiment))
    if remark_on_chance := chance_remark(experiment.name, metrics, dataset):
        yield page.paragraph(remark_on_chance)
    if why := detour(run, experiment):
        yield page.paragraph(f"Not what one training gives: {why}.")
    if dataset.skipped:
        left_out, named = len(dataset.skipped), ", ".join(dataset.skipped[:SKIPPED_NAMED])
        more = f" and {left_out - SKIPPED_NAMED} more (see dataset.json)" if left_out > SKIPPED_NAMED else ""
        yield page.paragraph(f"Unreadable images that were left out ({left_out}): {named}{more}.")
    if evaluations := evaluations_on_test(run):
        times = "once" if len(evaluations) == 1 else f"{len(evaluations)} times"
        yield page.paragraph(f"This run was evaluated on the test images {times}.")

    yield page.heading("Curves")
    yield page.picture(run.curves, "Accuracy and loss over the epochs, of training and validation images")
    if experiment.mixes_images:
        yield page.paragraph(
            "Accuracy and loss in training are those of mixed images, not to be compared with validation: "
            "the accuracy is about the heavier of an image's two labels."
        )

    if experiment.training.loss.softmax_before_loss:
        yield page.paragraph("Losses of the curves apply softmax twice, as training does; those below, once.")
    for folder, found in list_evaluations(run):
        same_images = found.fingerprint in (None, dataset.fingerprint)
        # Others are of before it was trained further.
        if same_images and found.epoch == metrics.of(found.checkpoint).epoch:
            yield from _evaluation(folder, found, which_epoch(found.checkpoint, metrics.best_words))
    if remark:
        yield page.paragraph(f"No pictures of the validation images: {remark}")

    yield page.heading("Speed and machine")
    yield page.table(("", ""), _machine(metrics, environment))
    yield page.heading("The same again")
    # Not the folder's name: a copy of a run may lie in another one.
    name = str(metrics.content.get("experiment", experiment.name))
    yield page.code("\n".join(_commands(run, name, environment)))
    for path, words in ((run.experiment, "defaults included"), (run.summary, "the network's layers")):
        if path.is_file():
            yield page.folded(f"{path.name}, {words}", page.code(path.read_text("utf-8", "replace")))
    versions = page.table(("package", "version"), list(environment.versions.items()))
    yield page.folded("versions", versions)


def _tiles(experiment: Experiment, metrics: MetricsRecord) -> list[tuple[str, str]]:
    headline, best, split = metrics.headline, metrics.best, metrics.split
    which = f"{headline.which} ({headline.epoch}){metrics.averaged}"
    found = [(percent(headline.val_accuracy), f"{split} accuracy, {which}")]
    if metrics.on_test and best and best.epoch != headline.epoch:
        chosen = f"{which_epoch('best', metrics.best_words)} ({best.epoch}) by {metrics.monitor}"
        found.append((percent(best.val_accuracy), f"{split} accuracy, {chosen}"))
    if views := metrics.test_time_views:
        found.append((percent(views.val_accuracy), f"{split} accuracy with test-time views"))
    if metrics.test:
        found.append((percent(metrics.test.accuracy), "test accuracy of the best epoch"))
    reference = experiment.reference
    if theirs := source_accuracies(experiment):
        data = f" on {reference.data}" if reference and reference.data else ""
        found.append((theirs, f"reported by the source{data}{' (last, best epoch)' * (',' in theirs)}"))
    found.append((f"{metrics.parameters.total:,}", "parameters"))
    if macs := metrics.parameters.macs:
        found.append((f"{macs / 1e6:,.1f} M", "multiply-accumulates an image"))
    found.append((duration(metrics.timing.seconds), f"for {counted(metrics.timing.epochs, 'epoch')}"))
    return found


def _evaluation(folder: Path, found: EvaluationRecord, which: str) -> Iterator[str]:
    """Yield the section of one evaluation; for `which` see `which_epoch`."""
    views = found.test_time_views
    seen = "" if views == "none" else f", test-time views {views}"
    seen += f" below {found.views_below:g}" if found.views_below is not None else ""
    epoch = f"{which} ({found.epoch}){found.averaged}"
    yield page.heading(f"{found.split.capitalize()} images, {epoch}{seen}")
    calibration = percent(found.expected_calibration_error), "expected calibration error"
    if found.calibrated:
        scaled = percent(found.calibrated.expected_calibration_error)
        calibration = scaled, f"{calibration[1]} ({calibration[0]} before temperature scaling)"
    top5 = [(percent(found.top5_accuracy), "top-5 accuracy")] if found.top5_accuracy is not None else []
    yield page.tiles(
        [
            (percent(found.accuracy), f"accuracy on {found.images:,} images"),
            *top5,
            (f"{found.loss:.4f}", "negative log-likelihood, no penalties"),
            (f"{found.macro_f1:.4f}", "mean F1 of the classes"),
            calibration,
        ]
    )
    if found.calibrated:
        yield page.paragraph(_calibration(found.calibrated))
    if found.recalibrated:
        yield page.paragraph(f"With batch normalisation recalibrated: {found.recalibrated.words}.")
    for name, (words, caption) in PICTURES.items():
        if (folder / name).is_file():
            yield page.picture(folder / name, words, f"{words}. {caption}".rstrip())
    cells = [
        (each.name, f"{each.images:,}", *(f"{value:.4f}" for value in (each.precision, each.recall, each.f1)))
        for each in found.classes
    ]
    classes = page.table(("class", "images", "precision", "recall", "F1"), cells, numbers=(1, 2, 3, 4))
    yield page.folded("metrics of all classes", classes)


def _calibration(calibrated: CalibratedRecord) -> str:
    """Return what the probabilities of an evaluation are, and how many are large enough, in sentences."""
    precision = calibrated.sure_precision
    correct = "" if precision is None else f", and {percent(precision)} of these are predicted correctly"
    sentences = (
        "Probabilities are the softmax of the logits divided by the temperature "
        f"{calibrated.temperature:.3f}, fitted on the validation images (Guo et al. 2017); the predicted "
        f"classes are the same. Predictions below a probability of {calibrated.unsure_below:.3f} are called "
        f"unsure: {percent(calibrated.sure_fraction)} of these images are sure{correct}."
    )
    return f"{sentences} {calibrated.remark}" if calibrated.remark else sentences


def _machine(metrics: MetricsRecord, environment: EnvironmentRecord) -> list[tuple[str, str]]:
    timing, resumes = metrics.timing, environment.resumes
    replicas = max(environment.replicas, *(each.replicas for each in resumes), 1)
    resumed, memory = ", ".join(map(str, timing.resumed_epochs)), timing.peak_memory_megabytes
    alike = not any(each.forced or each.differs for each in resumes)
    promised = environment.deterministic and replicas == 1 and alike
    workers = max(environment.workers, *(each.workers for each in resumes), 1)
    trained_by = f"{replicas} replicas of {workers} workers" if replicas > 1 else "one replica"
    return [
        ("an epoch", f"{seconds_text(timing.seconds_per_epoch)} s (median)"),
        ("training", f"{timing.images_per_second:,.0f} images a second (median)"),
        ("peak memory", f"{memory:,} MB" if memory else "not known"),
        ("resumed in epochs", resumed or "none"),
        ("processor", f"{environment.cpu.count} x {environment.cpu.model}"),
        ("devices", ", ".join(environment.devices)),
        ("trained by", trained_by),
        ("backend", f"{environment.backend}, Python {environment.python}"),
        ("same bits each time", "yes" if promised else "not promised"),
    ]


def _commands(run: Run, experiment: str, environment: EnvironmentRecord) -> list[str]:
    """Return the commands that train the same once more."""
    lines = [f"make train FROM={run.argument}"]
    overrides = environment.overrides
    if overrides is not None:
        command = train_command(experiment, overrides)
        lines.append(f"{command}    # where this run's folder is not at hand")
    if environment.commit:
        lines.append(f"# commit {environment.commit}")
    return lines
