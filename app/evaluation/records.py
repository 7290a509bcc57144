"""What a trained network does on a split, written down: metrics as JSON, and five pictures."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import ConfigDict

from app.data.dataset import Split
from app.evaluation.calibration import calibrated_metrics
from app.evaluation.image_sheets import draw_predictions
from app.evaluation.metrics import classification_metrics, probabilities, reliability
from app.evaluation.plots import draw_classes, draw_confusion, draw_reliability
from app.files import write_json
from app.reading import read_record
from app.records import (
    CalibratedRecord,
    Count,
    Epoch,
    FinalTestRecord,
    Fraction,
    MetricsRecord,
    Record,
    WeightsRecord,
)
from app.runs import Run

# Every picture of an evaluation: what it shows, and how it is to be read.
PICTURES = {
    "confusion.png": ("Confusion matrix", "Rows are true classes, columns predicted classes."),
    "classes.png": (
        "Precision, recall and F1 of each class",
        "Precision: of the images predicted as this class, the fraction that are. "
        "Recall: of the images of this class, the fraction predicted as it.",
    ),
    "mistakes.png": ("Most confident wrong predictions", "They are often odd images, or wrong labels."),
    "doubts.png": ("Least confident correct predictions", ""),
    "reliability.png": (
        "Reliability diagram",
        "On the diagonal accuracy equals confidence; below it the network is overconfident, above it "
        "underconfident.",
    ),
}


class ClassRecord(Record):
    """The metrics of one class."""

    name: str
    images: Count
    precision: Fraction
    recall: Fraction
    f1: Fraction


class RecalibratedRecord(Record):
    """The effect of recalibrated batch normalisation, as a sentence."""

    words: str


class EvaluationRecord(WeightsRecord):
    """evaluation.json; the confusion matrix, which nothing reads back, is skipped."""

    model_config = ConfigDict(extra="ignore")
    advice = "Delete it, and `make evaluate` with this run writes it again"

    checkpoint: str
    epoch: Epoch
    split: str
    test_time_views: str
    views_below: Fraction | None = None
    fingerprint: str | None = None  # of the data; older ones do not say
    images: Count
    loss: float
    accuracy: Fraction
    top5_accuracy: Fraction | None
    macro_f1: Fraction
    expected_calibration_error: Fraction
    classes: list[ClassRecord]
    recalibrated: RecalibratedRecord | None = None
    calibrated: CalibratedRecord | None = None


class EvaluationsOnTestRecord(Record):
    """test_evaluations.json."""

    test_evaluations: list[FinalTestRecord]


def evaluation_folder(
    run: Run, split: str, checkpoint: str, views: str = "none", below: float | None = None
) -> Path:
    """Return the folder for an evaluation of a run on "validation" or "test" images."""
    name = f"{split}-{checkpoint}{'' if views == 'none' else f'-{views}'}"
    return run.evaluations / (name if below is None else f"{name}-below-{below:g}")


def evaluation_content(
    run: Run,
    metrics: MetricsRecord,
    checkpoint: Literal["best", "last"],
    split_name: str,
    split: Split,
    logits: np.ndarray,
    class_names: Sequence[str],
    views: str = "none",
    **more: Any,
) -> dict[str, Any]:
    """Return the content of evaluation.json: what was evaluated, whatever else belongs to it, the metrics.

    Those that need probabilities are of the network's own, and again in `calibrated` of those at the run's
    temperature, where it has one.
    """
    if calibrated := metrics.calibration.get(checkpoint):
        of = calibrated.temperature, calibrated.unsure_below
        scaled = calibrated_metrics(split.labels, logits, *of)
        more["calibrated"] = scaled | {"remark": calibrated.remark}
    return {
        "run": run.name,
        "checkpoint": checkpoint,
        "which": which_epoch(checkpoint, metrics.best_words),
        "epoch": metrics.of(checkpoint).epoch,
        "weights": metrics.weights,
        "split": split_name,
        "test_time_views": views,
        **more,
        **classification_metrics(split.labels, logits, class_names),
    }


def which_epoch(checkpoint: str, best_words: str) -> str:
    """Return whose weights were evaluated, such as "best epoch on test"."""
    return best_words.replace("best", "best epoch") if checkpoint == "best" else f"{checkpoint} epoch"


def evaluation_title(content: dict[str, Any]) -> str:
    """Return the heading of an evaluation's pictures and table; for `content` see `evaluation_content`."""
    averaged = ", averaged weights" if content["weights"] == "average" else ""
    views = content["test_time_views"]
    seen = "" if views == "none" else f", test-time views {views}"
    seen += f" below {content['views_below']:g}" if "views_below" in content else ""
    return (
        f"{content['run']}, {content['which']} ({content['epoch']}){averaged}{seen}, "
        f"{content['images']:,} {content['split']} images"
    )


def write_evaluation(
    folder: Path, content: dict[str, Any], split: Split, logits: np.ndarray, class_names: Sequence[str]
) -> None:
    """Write evaluation.json and the pictures of an evaluation into `folder`; the same again replaces them.

    For `content` see `evaluation_content`; `logits` are (images, classes), float32.
    """
    from sklearn.metrics import confusion_matrix

    folder.mkdir(parents=True, exist_ok=True)
    title = evaluation_title(content)
    confusion = confusion_matrix(split.labels, logits.argmax(-1), labels=range(len(class_names)))
    draw_confusion(folder / "confusion.png", confusion, class_names, title)
    draw_classes(folder / "classes.png", content["classes"], title)
    calibrated = content.get("calibrated")
    temperature = calibrated["temperature"] if calibrated else 1.0
    of = split, logits, class_names, title
    draw_predictions(folder / "mistakes.png", *of, correct=False, temperature=temperature)
    draw_predictions(folder / "doubts.png", *of, correct=True, temperature=temperature)
    bins = reliability(split.labels, probabilities(logits, temperature))
    error = (calibrated or content)["expected_calibration_error"]
    before = (content["reliability"], content["expected_calibration_error"]) if calibrated else None
    draw_reliability(folder / "reliability.png", bins, error, title, before)
    write_json(folder / "evaluation.json", content)


def list_evaluations(run: Run) -> list[tuple[Path, EvaluationRecord]]:
    """Return the folders of all evaluations of a run, each with its evaluation.json."""
    paths = sorted(run.evaluations.glob("*/evaluation.json"))
    return [(path.parent, read_record(path, EvaluationRecord)) for path in paths]


def evaluations_on_test(run: Run) -> list[dict[str, Any]]:
    """Return every evaluation on the test split after training, the oldest first.

    A finished run that keeps validation images apart was evaluated on it once.
    """
    path = run.evaluations / "test_evaluations.json"
    if path.is_file():
        return [each.content for each in read_record(path, EvaluationsOnTestRecord).test_evaluations]
    test = read_record(run.metrics, MetricsRecord).test
    return [{"when": "at the end of training", "accuracy": test.accuracy}] if test else []


def keep_test_evaluations(run: Run) -> None:
    """Write down the evaluation of a finished run, which is to be trained further and evaluated again."""
    path = run.evaluations / "test_evaluations.json"
    if not path.is_file() and (evaluations := evaluations_on_test(run)):
        run.evaluations.mkdir(exist_ok=True)
        write_json(path, {"test_evaluations": evaluations})


def count_test_evaluation(run: Run, accuracy: float, **settings: Any) -> int:
    """Record one more evaluation on the test split, and return how many there were."""
    evaluations = [
        *evaluations_on_test(run),
        {"when": time.strftime("%Y-%m-%d %H:%M:%S"), "accuracy": accuracy, **settings},
    ]
    run.evaluations.mkdir(exist_ok=True)
    write_json(run.evaluations / "test_evaluations.json", {"test_evaluations": evaluations})
    return len(evaluations)
