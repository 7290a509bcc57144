"""The bench of an experiment: measures, ratios round by round, and a verdict in words."""

import contextlib
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from app.bench import baselines as rival
from app.bench import timers as ours
from app.bench.startup_time import start_up
from app.config import Experiment, dump_experiment
from app.data.dataset import whole_split
from app.data.pipeline import evaluation_batches
from app.files import new_folder, write_json
from app.machine import peak_memory_megabytes
from app.paths import runs_root, shown
from app.training.setup import Job, prepare
from app.training.startup import describe_environment, precision_advice, resolve_precision
from app.wording import duration
from models.inspect import count_macs, count_weights

ROUND_SECONDS = 5.0  # of each contender in each round, or two steps where those take longer


def bench(experiment: Experiment, against: Sequence[str], rounds: int, out: TextIO) -> Path:
    """Measure an experiment on this machine, alone or against competitors, and print what was found.

    Contenders take turns, a few steps each, so that a ratio compares neighbours in time.

    Args:
        experiment: What would be trained.
        against: Any of keras and torch. Keras is shown twice where TensorFlow by itself would compute with
            other kernels than this process does: with the same ones, and as it comes (`keras_default`).
        rounds: How often everybody has a turn.
        out: Receives each line as soon as it is known.

    Returns:
        The file bench.json, in a new folder of `runs/bench/`.

    Raises:
        UserError: The experiment cannot be trained, or a competitor does not start.
    """
    experiment = resolve_precision(experiment)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        file = folder / f"{experiment.name}.yaml"
        file.write_text(dump_experiment(experiment), encoding="utf-8")
        start = start_up(file)
        job = prepare(experiment)
        result: dict[str, Any] = {
            "experiment": experiment.name,
            "batch_size": experiment.training.batch_size,
            "precision": experiment.training.precision,
            "rounds": rounds,
            "start_up_seconds": start,
            "environment": describe_environment(job.deterministic),
        }
        say = _Sayer(result, out)
        say.header()
        if advice := precision_advice(experiment.training.precision, experiment.training.devices):
            say.line("precision", advice.removeprefix("training.precision: "))
        say.start_up()
        others = []
        mine = count_weights(job.classifier.network.trainable_weights)
        kernels = result["onednn_kernels"] = rival.onednn_kernels() if "keras" in against else None
        if kernels and kernels["here"] != kernels["by_itself"]:
            against = [*against, "keras_default"]
        for kind in against:
            other = rival.Rival(kind, file, job.dataset.image_shape, len(job.dataset.class_names))
            stack.callback(other.close)
            if (theirs := other.facts["trainable"]) != mine:
                raise AssertionError(f"{kind} trains {theirs} weights, we {mine}")
            others.append(other)
        result |= _take_turns(job, others, rounds, folder)
        say.steps()
        result |= _parts(job)
        say.parts()
        for other in others:
            result[other.kind] |= other.facts
            say.ratio(other.kind)
        result["peak_memory_megabytes"] = peak_memory_megabytes()
        say.end(job)
    path = new_folder(runs_root() / "bench") / "bench.json"
    write_json(path, result)
    print(f"figures {shown(path)}", file=out, flush=True)
    return path


def _take_turns(job: Job, others: Sequence[rival.Rival], rounds: int, folder: Path) -> dict[str, Any]:
    """Let `fit`, the bare step and the competitors take turns; return medians of each round."""
    contenders = {
        "fit": lambda steps: ours.fit_seconds(job, steps, folder),
        "bare": lambda steps: ours.bare_seconds(job, steps),
    }
    contenders |= {other.kind: other.seconds for other in others}
    steps = steps_in_a_round(contenders["fit"](2))
    contenders["bare"](1)
    seconds = in_turns(contenders, steps, rounds)
    found: dict[str, Any] = {
        "steps_per_round": steps,
        "fit": spread(seconds["fit"]),
        "bare": spread(seconds["bare"]),
        "fit_over_bare": ratios(seconds["fit"], seconds["bare"]),
    }
    for other in others:
        times_as_fast = ratios(seconds[other.kind], seconds["fit"])
        found[other.kind] = spread(seconds[other.kind]) | {"times_as_fast": times_as_fast}
    return found


def steps_in_a_round(warm_seconds: Sequence[float]) -> int:
    """Return how many steps fill ROUND_SECONDS, given what some took."""
    return int(np.clip(round(ROUND_SECONDS / statistics.median(warm_seconds)), 2, 200))


def in_turns(
    contenders: Mapping[str, Callable[[int], Sequence[float]]], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Return each contender's median seconds a step, round by round; every other round in reverse."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(rounds):
        order = list(contenders)[:: 1 if turn % 2 == 0 else -1]
        for name in order:
            seconds[name].append(statistics.median(contenders[name](steps)))
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the median over all rounds, and the rounds."""
    return {"seconds_per_step": statistics.median(seconds), "rounds": list(seconds)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest of the ratios of neighbours."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def _parts(job: Job) -> dict[str, Any]:
    """Measure what a step is made of, each part alone."""
    batch = job.experiment.training.batch_size
    pipeline = statistics.median(ours.pipeline_seconds(job, 40))
    augmentation = ours.augmentation_seconds(job, 10)
    split = whole_split(*job.dataset.val.take(np.arange(min(len(job.dataset.val), 2 * batch))))
    validation = evaluation_batches(split, batch)  # on the one Keras makes of arrays TensorFlow has remarks
    job.classifier.evaluate(validation, verbose=0)
    began = time.perf_counter()
    job.classifier.evaluate(validation, verbose=0)
    return {
        "pipeline_seconds_per_step": pipeline,
        "augmentation_seconds_per_step": statistics.median(augmentation) if augmentation else None,
        "validation_seconds_per_image": (time.perf_counter() - began) / len(split),
        "operations_per_step": 6 * count_macs(job.classifier.network) * batch,
        "peak_operations_per_second": ours.matmul_peak(job.classifier.network.compute_dtype),
    }


class _Sayer:
    """Prints the figures of a result in words."""

    def __init__(self, result: dict[str, Any], out: TextIO):
        self.result, self.out = result, out

    def line(self, subject: str, text: str) -> None:
        print(f"  {subject:<13} {text}", file=self.out, flush=True)

    def header(self) -> None:
        environment = self.result["environment"]
        versions = environment["versions"]
        where = f"{environment['cpu']['count']} x {environment['cpu']['model']}"
        if environment["devices"] not in (["CPU"], []):
            where = ", ".join(environment["devices"])
        backend = environment["backend"]
        print(
            f"{self.result['experiment']}: {self.result['precision']}, batches of "
            f"{self.result['batch_size']}, on {where}; Keras {versions['keras']}, {backend} "
            f"{versions.get(backend)}",
            file=self.out,
            flush=True,
        )

    def start_up(self) -> None:
        start = self.result["start_up_seconds"]
        self.line(
            "start-up",
            f"{start['total']:.1f} s to the end of the first step: imports {start['imports']:.1f}, data and "
            f"network {start['preparation']:.1f}, first step {start['first_step']:.1f}; our own code "
            f"{start['own_code']:.2f}",
        )

    def steps(self) -> None:
        fit, bare, batch = self.result["fit"], self.result["bare"], self.result["batch_size"]
        for name, found in (("fit step", fit), ("bare step", bare)):
            seconds, low, high = found["seconds_per_step"], min(found["rounds"]), max(found["rounds"])
            self.line(name, f"{seconds:.4g} s ({low:.4g} to {high:.4g}), {batch / seconds:,.0f} images/s")
        self.line("fit / bare", in_words(self.result["fit_over_bare"], 3))

    def parts(self) -> None:
        result = self.result
        step, bare = result["fit"]["seconds_per_step"], result["bare"]["seconds_per_step"]
        pipeline, batch = result["pipeline_seconds_per_step"], result["batch_size"]
        self.line(
            "pipeline",
            f"{batch / pipeline:,.0f} images/s alone, {bare / pipeline:,.1f} times what a step takes",
        )
        if (augmentation := result["augmentation_seconds_per_step"]) is not None:
            self.line(
                "augmentation", f"{1e3 * augmentation:.3g} ms alone, {augmentation / step:.1%} of the step"
            )
        rate, peak = result["operations_per_step"] / bare, result["peak_operations_per_second"]
        result["share_of_peak"] = rate / peak
        self.line(
            "arithmetic",
            f"{rate / 1e9:,.0f} of the {peak / 1e9:,.0f} GFLOP/s of a matrix product, {rate / peak:.0%}",
        )

    def ratio(self, kind: str) -> None:
        found, kernels = self.result[kind], self.result["onednn_kernels"] or {}
        which = ""
        if kind == "keras_default":
            which = f" as it comes, oneDNN kernels {'on' if kernels['by_itself'] else 'off'}"
        elif kind == "keras" and kernels:
            which = f" with oneDNN kernels {'on' if kernels['here'] else 'off'}, as ours"
            which += " and as it comes" if kernels["here"] == kernels["by_itself"] else ""
        self.line(
            f"against {kind.partition('_')[0]}",
            f"{found['version']}{which}: {found['seconds_per_step']:.4g} s a step without augmentation; "
            f"ours is {in_words(found['times_as_fast'], 2)} times as fast",
        )

    def end(self, job: Job) -> None:
        result = self.result
        step, pipeline = result["bare"]["seconds_per_step"], result["pipeline_seconds_per_step"]
        if pipeline > step:
            verdict = f"input-bound by {pipeline / step - 1:.0%}: the pipeline is slower than the step"
        else:
            verdict = f"compute-bound: the pipeline could feed {step / pipeline:,.1f} such steps"
        result["verdict"] = verdict
        self.line("verdict", verdict)
        self.line("memory", f"{result['peak_memory_megabytes'] or 0:,} MB at most")
        training, dataset = job.experiment.training, job.dataset
        epoch = job.steps_per_epoch * result["fit"]["seconds_per_step"]
        epoch += len(dataset.val) * result["validation_seconds_per_image"]
        result["seconds_per_epoch"] = epoch
        self.line(
            "the run",
            f"{training.epochs} epochs of about {duration(epoch)}, "
            f"{duration(training.epochs * epoch)} in all",
        )


def in_words(ratios: dict[str, float], digits: int) -> str:
    """Return median, smallest and largest as text."""
    median, least, most = (f"{ratios[key]:.{digits}f}" for key in ("median", "least", "most"))
    return f"{median} ({least} to {most})"
