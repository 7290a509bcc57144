"""`make evaluate`: metrics of a trained network on the validation or test split, overall and per class."""

from typing import Any, Literal, TextIO

import keras
import numpy as np
from keras import ops

from app.config.dataset import DatasetConfig, Sampler
from app.data.dataset import Split
from app.data.order import epoch_order
from app.data.views import VIEWS
from app.errors import UserError
from app.evaluation.logits import passes_saved, split_logits
from app.evaluation.metrics import SIGNIFICANCE, mcnemar, p_words
from app.evaluation.records import (
    count_test_evaluation,
    evaluation_content,
    evaluation_folder,
    evaluation_title,
    write_evaluation,
)
from app.files import atomic_path
from app.inference.load import CheckpointName, SplitName, batches_of, finite_logits, load_split, load_trained
from app.paths import shown
from app.reading import read_record
from app.records import EnvironmentRecord
from app.reports.report import write_report
from app.runs import Run
from app.training.freezing import Freezing
from app.wording import aligned
from models import ImageClassifier
from models.inspect import named_layers

RECALIBRATION_IMAGES = 4096
Views = Literal["none", "flip", "flip_and_shift"]


def evaluate(
    run: Run,
    split: SplitName,
    checkpoint: CheckpointName | None,
    views: Views,
    out: TextIO,
    below: float | None = None,
    config: DatasetConfig | None = None,
) -> dict[str, Any]:
    """Evaluate a finished run's network, write metrics, pictures and its report again, and print a table.

    Logits are averaged over test-time `views`, see app/data/views.py. With `below`
    only those of images whose largest probability is below it, see `split_logits`. For `config` see
    `load_split`.

    Returns:
        The content of evaluation.json.

    Raises:
        UserError: The run is not finished, its files are damaged, or its data has changed or is missing.
    """
    trained = load_trained(run, checkpoint)
    dataset, chosen = load_split(trained, split, config)
    experiment, classifier = trained.experiment, trained.classifier
    replicas = read_record(run.environment, EnvironmentRecord).replicas
    size = max(1, experiment.training.batch_size // replicas)  # which one device has room for
    plain = finite_logits(split_logits(classifier, chosen, size), run.name)
    logits = finite_logits(split_logits(classifier, chosen, size, VIEWS[views], plain, below), run.name)
    on_test = chosen is dataset.test or experiment.dataset.validates_on_test
    more: dict[str, Any] = {"fingerprint": dataset.fingerprint}
    if below is not None:
        saved, total = passes_saved(plain, VIEWS[views], below), len(plain) * len(VIEWS[views])
        more |= {"views_below": below, "passes": total, "passes_saved": saved}
    Freezing(experiment.model, classifier.network).hold(trained.epoch - 1)  # as that epoch had them
    if images := recalibrate(classifier, dataset.train, size, experiment.dataset.sampler):
        again = split_logits(classifier, chosen, size, VIEWS[views], below=below)
        more["recalibrated"] = {"training_images": images, **_compare(chosen.labels, logits, again)}
    names = classifier.class_names
    of = run, trained.metrics, trained.checkpoint, "test" if on_test else split
    content = evaluation_content(*of, chosen, logits, names, views, **more)
    folder, test_evaluations = evaluation_folder(run, split, trained.checkpoint, views, below), 0
    refused = None
    if chosen is dataset.test:
        try:  # before anybody sees it
            test_evaluations = count_test_evaluation(
                run, content["accuracy"], checkpoint=trained.checkpoint, test_time_views=views
            )
        except OSError as error:
            refused = error
    _print_table(content, out)
    try:
        if refused:
            raise refused
        write_evaluation(folder, content, chosen, logits, names)
        with atomic_path(folder / "predictions.npz") as temporary:
            np.savez(temporary, allow_pickle=False, labels=chosen.labels, logits=logits)
    except OSError as error:
        raise UserError(
            f"{shown(folder)}: cannot be written ({error.strerror or error}); only what was printed is left "
            "of this evaluation. Make the folder writable, or evaluate a copy of the run"
        ) from error
    if test_evaluations:
        print(
            f"test evaluations of this run: {test_evaluations}; settings chosen by their results make the "
            "test accuracy optimistic",
            file=out,
        )
    elif on_test:
        print("the validation images are the test split: training evaluated them after every epoch", file=out)
    print(f"metrics and pictures {shown(folder)}", file=out)
    if run.report.is_file():  # which shows all evaluations
        try:
            write_report(run)
        except (UserError, OSError) as error:
            print(f"{shown(run.report)} stays as it was: {error}", file=out)
    return content


def recalibrate(
    classifier: ImageClassifier, train: Split, batch_size: int, sampler: Sampler | None = None
) -> int:
    """Recompute the statistics of every batch normalisation on training images.

    Moving averages lag behind the weights that training changes. Here means and variances are those of up to
    4,096 training images, not augmented, dropout off: the mean over batches of their means, and of their
    variances plus the variance of the means.

    `sampler` says how often classes appear, as in training.

    Returns:
        How many images were used; 0 where the network has no batch normalisation that is trained.
    """
    all_layers = [layer for _, layer in named_layers(classifier.network)]
    norms = [layer for layer in all_layers if isinstance(layer, keras.layers.BatchNormalization)]
    layers = [layer for layer in norms if layer.trainable]  # frozen ones keep theirs, as in training
    if not layers:
        return 0
    # With momentum 0 the moving statistics are those of the last batch.
    changed = [(layer, "momentum", layer.momentum) for layer in layers]
    changed += [(each, "rate", each.rate) for each in all_layers if isinstance(each, keras.layers.Dropout)]
    batch_size = min(batch_size, RECALIBRATION_IMAGES)
    num_batches = max(1, min(len(train), RECALIBRATION_IMAGES) // batch_size)
    sample = epoch_order(0, 0, train.labels, sampler)[: num_batches * batch_size]
    means: list[list[np.ndarray]] = [[] for _ in layers]
    variances: list[list[np.ndarray]] = [[] for _ in layers]
    try:
        for layer, name, _ in changed:
            setattr(layer, name, 0.0)
        for positions in batches_of(sample, batch_size):
            pixels = classifier.normalization(ops.cast(train.take(positions)[0], "float32"))
            classifier.network(pixels, training=True)
            for number, layer in enumerate(layers):
                means[number].append(ops.convert_to_numpy(layer.moving_mean).astype(np.float64))
                variances[number].append(ops.convert_to_numpy(layer.moving_variance).astype(np.float64))
    finally:
        for layer, name, value in changed:
            setattr(layer, name, value)
    for layer, mean, variance in zip(layers, means, variances, strict=True):
        layer.moving_mean.assign(np.mean(mean, axis=0).astype(np.float32))
        layer.moving_variance.assign((np.mean(variance, axis=0) + np.var(mean, axis=0)).astype(np.float32))
    return len(sample)


def _compare(labels: np.ndarray, plain: np.ndarray, again: np.ndarray) -> dict[str, Any]:
    """Return the accuracy with recalibrated statistics, and a sentence on how it differs."""
    right, right_again = plain.argmax(-1) == labels, again.argmax(-1) == labels
    test = mcnemar(right_again, right)
    before, after = 100 * float(right.mean()), 100 * float(right_again.mean())
    change, p = f"{after:.2f} % instead of {before:.2f} %", p_words(test["p_value"])
    if test["only_first"] == test["only_second"] == 0:
        words = f"{after:.2f} %, the same images are correct"
    elif f"{after:.2f}" == f"{before:.2f}":
        words = f"{after:.2f} %, as accurate as before"
    elif test["p_value"] >= SIGNIFICANCE:
        words = f"{change}, not significant at {100 * SIGNIFICANCE:g} % (McNemar, {p})"
    else:
        words = f"{change} (McNemar, {p}): the moving averages " + (
            "lag behind the weights; train longer at a small learning rate, or with a smaller bn_momentum"
            if after > before
            else "suit this network better than those of images that are not augmented"
        )
    return {"accuracy": after / 100, **test, "words": words}


def _print_table(content: dict[str, Any], out: TextIO) -> None:
    """Print the metrics of all images, then of each class."""
    top5 = content["top5_accuracy"]
    metrics = [
        f"accuracy {100 * content['accuracy']:.2f} %",
        *([f"top-5 {100 * top5:.2f} %"] if top5 is not None else []),
        f"negative log-likelihood {content['loss']:.4f}",
        f"mean F1 {content['macro_f1']:.4f}",
        f"calibration error {100 * content['expected_calibration_error']:.2f} %",
    ]
    if calibrated := content.get("calibrated"):
        error, precision = calibrated["expected_calibration_error"], calibrated["sure_precision"]
        metrics[-1] += f", {100 * error:.2f} % at temperature {calibrated['temperature']:.3f}"
        correct = "" if precision is None else f", {100 * precision:.2f} % of these correctly"
        sure = f"{100 * calibrated['sure_fraction']:.2f} % of the images are sure{correct}"
    title = evaluation_title(content)
    print(title, "   ".join(metrics), sep="\n", file=out)
    if calibrated:
        print(f"unsure below a probability of {calibrated['unsure_below']:.3f}: {sure}", file=out)
    rows = [("class", "images", "precision", "recall", "F1")]
    rows += [
        (each["name"], f"{each['images']:,}", *(f"{each[key]:.4f}" for key in ("precision", "recall", "f1")))
        for each in content["classes"]
    ]
    print(*aligned(rows, right=(1, 2, 3, 4)), sep="\n", file=out)
    if "passes_saved" in content:
        saved = f"{content['passes_saved']:,} of {content['passes']:,} passes saved"
        print(f"test-time views below {content['views_below']:g}: {saved}", file=out)
    if "recalibrated" in content:
        print(f"with batch normalisation recalibrated: {content['recalibrated']['words']}", file=out)
