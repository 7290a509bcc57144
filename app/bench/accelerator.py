"""The first minutes on a graphics card: does everything train on it, how fast, and as on a CPU?

`python -m app.bench.accelerator` takes the steps missing in runs/bench/accelerator-BACKEND.json and .md.
"""

import argparse
import importlib.util
import sys
import tempfile
import time
from typing import Any

import numpy as np
from PIL import Image

from app import backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up
from app.bench import bench, prove, timers
from app.config import load_experiment
from app.data.datasets import load_dataset
from app.errors import UserError
from app.files import write_json, write_text
from app.inference import export, predict
from app.paths import runs_root
from app.reading import read_history, read_json
from app.training import startup, train


def augmentation(tiny: bool) -> dict[str, Any]:
    """Compare the draws of each layer, compiled, on the card with those on the CPU."""
    dataset = load_dataset(load_experiment("fast_cifar10").dataset)
    return timers.compare_augmentation(dataset.train.images[:4], draws=64 if tiny else 1024)


def resnet18(tiny: bool, precision: str) -> dict[str, Any]:
    """Train an epoch; then measure the step beside plain Keras' and PyTorch's."""
    once = ["training.epochs=1", "optimizer.learning_rate.warmup_epochs=0", f"training.precision={precision}"]
    size = ["training.batch_size=16", "dataset.train_share=0.01"] if tiny else []
    experiment = load_experiment("resnet18_cifar10", [*once, *size])
    row = read_history(train.train(experiment).history)[0]
    against = ["keras", "torch"] if importlib.util.find_spec("torch") else ["keras"]
    found = read_json(bench.bench(experiment, against, 1 if tiny else 5, sys.stdout))
    speed = {name: found["batch_size"] / found[name]["seconds_per_step"] for name in ("fit", *against)}
    return {"epoch, s": row["seconds"], "val_accuracy": row["val_accuracy"], "images/s": speed}


def fast_cifar10(tiny: bool) -> dict[str, Any]:
    """Train the whole recipe; export what it made, and tell the classes of image files with it."""
    size = ["training.epochs=3", "optimizer.learning_rate.peak_epoch=1", "training.batch_size=32",
            "dataset.train_share=0.01"]  # fmt: skip
    experiment, began = load_experiment("fast_cifar10", size if tiny else []), time.monotonic()
    run = train.train(experiment)
    found = {"training, s": time.monotonic() - began} | read_json(run.metrics)["test_time_views"]
    check = read_json(export.export(run, "keras", None, sys.stdout) / "export.json")["check"]
    with tempfile.TemporaryDirectory() as folder:
        for number, image in enumerate(load_dataset(experiment.dataset).val.images[:64]):
            Image.fromarray(image).save(f"{folder}/{number:02}.png")
        table = (predict.predict(run, folder, None, sys.stdout) / "predictions.csv").read_text()
    return found | {"export differs by": check["largest_difference"], "images predicted": table.count(".png")}


def kill_and_resume(tiny: bool) -> dict[str, Any]:
    """Train the quick start straight, and killed and resumed; measure how far the last states are apart."""
    epochs = 2 if tiny else 5
    changes = f"training.checkpoint_every_minutes=0.01 training.epochs={epochs}"
    command = ["train", "quickstart", "--set", changes]
    straight, _ = prove.run_process(command)
    killed, when = prove.run_process(command, prove.Kill(0.4, 0.0, while_saving=False, epochs=epochs))
    prove.run_process(["resume", "--run", killed.name])
    with np.load(straight.state_files[-1]) as one, np.load(killed.state_files[-1]) as two:
        apart = [np.abs(one[key] - two[key]).max() for key in one.files if one[key].dtype == "float32"]
    return {"killed": when, "largest difference": float(max(apart))}


STEPS: dict[str, Any] = {
    "augmentation": augmentation,
    "resnet18_float32": lambda tiny: resnet18(tiny, "float32"),
    "resnet18_bfloat16": lambda tiny: resnet18(tiny, "bfloat16"),
    "fast_cifar10": fast_cifar10,
    "kill_and_resume": kill_and_resume,
}


def main() -> None:
    """Take the steps whose results are not there yet."""
    parser = argparse.ArgumentParser(prog="python -m app.bench.accelerator")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--tiny", action="store_true", help="a trial on a CPU")
    options = parser.parse_args()
    environment = startup.describe_environment(deterministic=False)
    file = runs_root() / "bench" / f"accelerator-{environment['backend']}{'-tiny' * options.tiny}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    found = read_json(file) if file.exists() else {"environment": environment}
    for step in [step for step in options.steps if step not in found]:
        began = time.monotonic()
        found[step] = STEPS[step](options.tiny) | {"step, s": round(time.monotonic() - began)}
        write_json(file, found)
    rows = [f"| {step} | {key} | {value} |" for step in STEPS for key, value in found.get(step, {}).items()]
    write_text(file.with_suffix(".md"), "\n".join(["| step | what | found |", "|---|---|---|", *rows, ""]))
    print(file.with_suffix(".md").read_text())


if __name__ == "__main__":
    try:
        main()
    except UserError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)
