"""Trials that were never trained: their values follow from their settings, as far as a formula can say."""

import json
import random

from app.config import load_experiment
from app.config.sweep import Choice, Range, SweepConfig
from app.sweep.trials import Trial

FLIP_AND_CROP = [{"random_flip": {"mode": "horizontal"}}, {"random_crop": {"padding_pixels": 4}}]
SPACE = {
    "optimizer.learning_rate.peak": Range(low=1e-4, high=1e-1, log=True, integer=False),
    "training.batch_size": Choice(values=(32, 64)),
    "augmentation": Choice(values=([], ["random_flip"], FLIP_AND_CROP)),
}
REASON = "the loss is no longer finite (nan) in epoch 2 <b>"


def sweep_of(**options):
    return SweepConfig(space=SPACE, **options)


def searched(**options):
    """The experiment `tiny` with a sweep."""
    return load_experiment("tiny").model_copy(update={"sweep": sweep_of(**options)})


def made_up_trials(count, seed=0):
    """Finished trials, but every fourth is pruned, every eighth failed; the batch decides most."""
    draw, trials = random.Random(seed), []
    for number in range(count):
        settings = {
            "optimizer.learning_rate.peak": 10 ** draw.uniform(-4, -1),
            "training.batch_size": draw.choice((32, 64)),
            "augmentation": draw.choice(([], ["random_flip"], FLIP_AND_CROP)),
        }
        value = 0.5 + 0.2 * (settings["training.batch_size"] == 64) + draw.uniform(0, 0.02)
        run = f"tiny.sweep/20260101-{number:06}"
        trial = Trial(number, settings, "finished", (value / 2, value), value, None, run, 3.0)
        if number % 8 == 7:
            trial = trial._replace(state="failed", values=(0.1, None), value=None, reason=REASON)
        elif number % 4 == 3:
            trial = trial._replace(state="pruned", values=(0.2,), value=None)
        trials.append(trial)
    return trials


def finished(*values):
    """Finished trials with these values, from number 0 on."""
    settings = {"optimizer.learning_rate.peak": 0.01, "training.batch_size": 32, "augmentation": []}
    return [
        Trial(number, settings, "finished", (value,), value, None, f"tiny.sweep/{number}", 1.0)
        for number, value in enumerate(values)
    ]


def write_folder(folder, experiment, trials, overrides=(), fingerprint="0"):
    """Write what the engine leaves in the folder of a sweep."""
    from app.sweep.trials import write_trials

    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "experiment": experiment.name,
        "begun": "2026-01-01 00:00:00",
        "settings": experiment.model_dump(mode="json"),
        "overrides": list(overrides),
        "fingerprint": fingerprint,
        "storage": "SQLite",
        "study": "tiny",
    }
    (folder / "sweep.json").write_text(json.dumps(record))
    write_trials(folder, trials)
