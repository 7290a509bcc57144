"""The bench of an experiment: measures, ratios round by round, and a verdict in words."""

import contextlib
import functools
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from app.bench import baselines, timers
from app.bench.json_worker import JsonWorker
from app.bench.startup_time import start_up
from app.config import Experiment, dump_experiment
from app.data.dataset import whole_split
from app.data.pipeline import evaluation_batches
from app.files import new_folder, write_json
from app.machine import accelerators, describe_machine, peak_memory_megabytes
from app.paths import runs_root, shown
from app.records import EnvironmentRecord
from app.training.backbone_features import usable_halves
from app.training.setup import Job, prepare
from app.training.startup import describe_environment, precision_advice, resolve_precision
from app.wording import duration
from models.inspect import count_macs, count_weights

ROUND_SECONDS = 5.0  # of each contender in each round, or two steps where those take longer
_Baseline = tuple[JsonWorker, dict[str, Any]]  # its process, and what it is


def bench(
    experiment: Experiment,
    against: Sequence[str],
    rounds: int,
    out: TextIO,
    beside: Mapping[str, Experiment] | None = None,
) -> Path:
    """Measure an experiment on this machine, alone or against others, and print the results.

    All contenders are interleaved, a few steps each, so that a ratio compares neighbours in time. `fit` alone
    is measured of `beside`, the experiment with one setting changed, by that setting.

    Keras is shown twice where TensorFlow by itself would compute with other kernels than this process does:
    with the same ones, and as it comes (`keras_default`). Returns the file bench.json, in a new folder of
    `runs/bench/`.

    Raises:
        UserError: An experiment cannot be trained, or a baseline does not start.
    """

    def say(subject: str, text: str) -> None:
        print(f"  {subject:<13} {text}", file=out, flush=True)

    experiment = resolve_precision(experiment)
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        file = folder / f"{experiment.name}.yaml"
        file.write_text(dump_experiment(experiment), encoding="utf-8")
        job = prepare(experiment)  # first: it tells a mistake in full
        start = start_up(file)
        precision, batch = experiment.training.precision, experiment.training.batch_size
        environment = describe_environment(job.deterministic)
        result: dict[str, Any] = {
            "experiment": experiment.name,
            "batch_size": batch,
            "precision": precision,
            "rounds": rounds,
            "start_up_seconds": start,
            "environment": environment,
        }
        where = describe_machine(EnvironmentRecord(**environment))
        line = f"{experiment.name}: {precision}, batches of {batch}, on {where}"
        print(f"{line}, Keras {environment['versions']['keras']}", file=out, flush=True)
        if len(gpus := accelerators(environment["devices"])) > 1:
            say("devices", f"one of {len(gpus)} is measured; make train divides each batch among all")
        if advice := precision_advice(precision, experiment.training.devices):
            say("precision", advice.removeprefix("training.precision: "))
        say(
            "start-up",
            f"{start['total']:.1f} s to the end of the first step: imports {start['imports']:.1f}, data and "
            f"network {start['preparation']:.1f}, first step {start['first_step']:.1f}; our own code "
            f"{start['own_code']:.2f}",
        )
        kernels = result["onednn_kernels"] = baselines.onednn_kernels() if "keras" in against else None
        if kernels and kernels["here"] != kernels["by_itself"]:
            against = [*against, "keras_default"]
        others = {kind: _start_baseline(kind, file, job, stack) for kind in against}
        changed = {}
        for setting, one in (beside or {}).items():
            same = job.dataset if one.dataset == job.experiment.dataset else None
            changed[setting] = prepare(one.with_auto(precision=precision), dataset=same)
        result |= _interleave(job, others, changed, rounds, folder)
        for name, key in (("fit step", "fit"), ("compiled step", "bare")):
            say(name, _step(result[key], batch))
        say("fit/compiled", in_words(result["fit_over_bare"], 3))
        result |= _parts(job, result, bool(gpus))
        for subject, text in _part_lines(result):
            say(subject, text)
        for kind in against:
            say(f"against {kind.partition('_')[0]}", _comparison(result[kind], kind, kernels))
        for setting, found in result["beside"].items():
            ratio = in_words(found["times_as_long"], 3)
            say("beside", f"{setting}: {found['seconds_per_step']:.4g} s, {ratio} of the fit step")
        result["peak_memory_megabytes"] = peak_memory_megabytes()
        say("verdict", result["verdict"])
        say("memory", f"{result['peak_memory_megabytes']:,} MB at most")
        epochs, epoch = job.experiment.training.num_epochs, result["seconds_per_epoch"]
        less = "; less, as the frozen backbone is computed once for all epochs" if usable_halves(job) else ""
        say("the run", f"{epochs} epochs of about {duration(epoch)}, {duration(epochs * epoch)} in all{less}")
    path = new_folder(runs_root() / "bench") / "bench.json"
    write_json(path, result)
    print(f"results {shown(path)}", file=out, flush=True)
    return path


def _start_baseline(kind: str, file: Path, job: Job, stack: contextlib.ExitStack) -> _Baseline:
    """Start a baseline, which ends with the stack; once it is warm, see that it trains as many weights."""
    module, arguments = "app.bench.baselines", [job.dataset.image_shape, len(job.dataset.class_names)]
    variables = {baselines.ONEDNN: baselines.BY_ITSELF} if kind == "keras_default" else {}
    worker = JsonWorker(f"AGAINST={kind}", module, kind, file, *arguments, folder=file.parent, **variables)
    description = stack.enter_context(contextlib.closing(worker)).answer()
    ours, theirs = count_weights(job.classifier.network.trainable_weights), description["trainable"]
    assert theirs == ours, f"{kind} trains {theirs} weights, we {ours}"
    return worker, description


def _interleave(
    job: Job, others: Mapping[str, _Baseline], changed: Mapping[str, Job], rounds: int, folder: Path
) -> dict[str, Any]:
    """Measure `fit`, the compiled step alone and the others; return medians of each round."""
    contenders = {
        "fit": lambda steps: timers.fit_seconds(job, steps, folder),
        "bare": lambda steps: timers.compiled_seconds(job, steps),
    }
    contenders |= {kind: worker.seconds for kind, (worker, _) in others.items()}
    for setting, one in changed.items():
        contenders[setting] = functools.partial(timers.fit_seconds, one, folder=folder)
        contenders[setting](1)
    steps = steps_in_a_round(contenders["fit"](2))
    contenders["bare"](1)
    seconds = interleaved(contenders, steps, rounds)
    result: dict[str, Any] = {"steps_per_round": steps}
    result |= {name: spread(rounds_of) for name, rounds_of in seconds.items() if name not in changed}
    result["fit_over_bare"] = ratios(seconds["fit"], seconds["bare"])
    for kind, (_, description) in others.items():
        result[kind] |= {"times_as_fast": ratios(seconds[kind], seconds["fit"])} | description
    result["beside"] = {
        name: spread(seconds[name]) | {"times_as_long": ratios(seconds[name], seconds["fit"])}
        for name in changed
    }
    return result


def steps_in_a_round(warm_seconds: Sequence[float]) -> int:
    """Return how many steps fill ROUND_SECONDS, given what some took."""
    return int(np.clip(round(ROUND_SECONDS / statistics.median(warm_seconds)), 2, 200))


def interleaved(
    contenders: Mapping[str, Callable[[int], Sequence[float]]], steps: int, rounds: int
) -> dict[str, list[float]]:
    """Return each contender's median seconds a step, round by round; every other round in reverse."""
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    names = list(contenders)
    for number in range(rounds):
        for name in reversed(names) if number % 2 else names:
            seconds[name].append(statistics.median(contenders[name](steps)))
    return seconds


def spread(seconds: Sequence[float]) -> dict[str, Any]:
    """Return the median over all rounds, and the rounds."""
    return {"seconds_per_step": statistics.median(seconds), "rounds": list(seconds)}


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> dict[str, float]:
    """Return median, smallest and largest of the ratios of neighbours."""
    ratios = [a / b for a, b in zip(numerators, denominators, strict=True)]
    return {"median": statistics.median(ratios), "least": min(ratios), "most": max(ratios)}


def _parts(job: Job, steps: Mapping[str, Any], on_gpu: bool) -> dict[str, Any]:
    """Measure the parts of a step, each alone, and compute what follows for the run."""
    fit_step, compiled_step = (steps[name]["seconds_per_step"] for name in ("fit", "bare"))
    dataset, batch = job.dataset, job.experiment.training.batch_size
    pipeline = statistics.median(timers.pipeline_seconds(job, 40))
    augmentation = timers.augmentation_seconds(job, 10)
    split = whole_split(*dataset.val.take(np.arange(min(len(dataset.val), 2 * batch))))
    validation = evaluation_batches(split, batch)  # on the one Keras makes of arrays TensorFlow has remarks
    job.classifier.evaluate(validation, verbose=0)
    began = time.perf_counter()
    job.classifier.evaluate(validation, verbose=0)
    image = (time.perf_counter() - began) / len(split)
    frozen = sum(map(count_macs, job.freezing.below)) if job.freezing.held else 0  # forward alone
    operations = (6 * count_macs(job.classifier.network) - 4 * frozen) * batch
    peak = timers.matmul_peak(job.classifier.network.compute_dtype, on_gpu)
    if pipeline > compiled_step:
        verdict = f"input-bound by {pipeline / compiled_step - 1:.0%}: the pipeline is slower than the step"
    else:
        verdict = f"compute-bound: the pipeline could feed {compiled_step / pipeline:,.1f} such steps"
    return {
        "pipeline_seconds_per_step": pipeline,
        "augmentation_seconds_per_step": statistics.median(augmentation) if augmentation else None,
        "validation_seconds_per_image": image,
        "operations_per_step": operations,
        "peak_operations_per_second": peak,
        "share_of_peak": operations / compiled_step / peak,
        "verdict": verdict,
        "seconds_per_epoch": job.steps_per_epoch * fit_step + len(dataset.val) * image,
    }


def _step(timing: Mapping[str, Any], batch: int) -> str:
    seconds, low, high = timing["seconds_per_step"], min(timing["rounds"]), max(timing["rounds"])
    return f"{seconds:.4g} s ({low:.4g} to {high:.4g}), {batch / seconds:,.0f} images/s"


def _part_lines(result: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield subject and text on each part of a step."""
    fit, compiled = result["fit"]["seconds_per_step"], result["bare"]["seconds_per_step"]
    pipeline, augmentation = result["pipeline_seconds_per_step"], result["augmentation_seconds_per_step"]
    images = f"{result['batch_size'] / pipeline:,.0f} images/s"
    yield "pipeline", f"{images} alone, {compiled / pipeline:,.1f} times what a step takes"
    if augmentation is not None:
        yield "augmentation", f"{1e3 * augmentation:.3g} ms alone, {augmentation / fit:.1%} of the step"
    speed, peak = result["operations_per_step"] / compiled / 1e9, result["peak_operations_per_second"] / 1e9
    of_peak = f"{result['share_of_peak']:.0%}"
    yield "arithmetic", f"{speed:,.0f} of the {peak:,.0f} GFLOP/s of a matrix product, {of_peak}"


def _comparison(found: Mapping[str, Any], kind: str, kernels: Mapping[str, bool] | None) -> str:
    """Return how a baseline compares, and with which kernels it computed."""
    which = ""
    if kernels and kind == "keras_default":
        which = f" as it comes, oneDNN kernels {'on' if kernels['by_itself'] else 'off'}"
    elif kernels and kind == "keras":
        which = f" with oneDNN kernels {'on' if kernels['here'] else 'off'}, as ours"
        which += " and as it comes" if kernels["here"] == kernels["by_itself"] else ""
    return (
        f"{found['version']}{which}: {found['seconds_per_step']:.4g} s a step without augmentation; "
        f"ours is {in_words(found['times_as_fast'], 2)} times as fast"
    )


def in_words(ratios: dict[str, float], digits: int) -> str:
    """Return median, smallest and largest as text."""
    median, least, most = (f"{ratios[key]:.{digits}f}" for key in ("median", "least", "most"))
    return f"{median} ({least} to {most})"
