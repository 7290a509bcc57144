"""What each verb does that trains or measures: from its parsed options to an exit code.

Nothing here imports TensorFlow or Keras at module level, so that the quick verbs answer at once.
"""

import argparse
import json
import shlex
import statistics
import sys
from pathlib import Path

from app.commands.runs import chosen_run
from app.config import Experiment, list_experiments, load_experiment, misnamed_files
from app.distributed.cluster import find_group, is_alone
from app.distributed.local_workers import local_workers
from app.errors import UserError
from app.files import check_folder
from app.paths import runs_root
from app.preflight import (
    changed_data,
    check_backend,
    check_data,
    check_resumable,
    load_images,
    refuse_or_force,
    settle_weights,
)
from app.reading import read_record
from app.records import MetricsRecord
from app.reports.results_table import write_results_table
from app.runs import find_run, list_runs, load_run_experiment, locked, newest_run

DEFAULT_EXPERIMENT = "quickstart"


def _overrides(options: argparse.Namespace) -> list[str]:
    """Return the KEY=VALUE pairs of all --set options, split as a shell would, and of --data-dir."""
    pairs: list[str] = []
    for text in options.set:
        try:
            pairs += shlex.split(text)
        except ValueError as error:
            raise UserError(
                f"--set {text}: {error}; write KEY=VALUE pairs with spaces between them"
            ) from error
    if getattr(options, "data_dir", None):
        try:
            folder = Path(options.data_dir).expanduser().resolve()
        except (OSError, ValueError, RuntimeError) as error:  # a circle of links, the home of nobody
            raise UserError(f"--data-dir {options.data_dir!r}: {error}") from error
        pairs.append(f"dataset.data_dir={json.dumps(str(folder))}")
    return pairs


def _chosen(options: argparse.Namespace) -> Experiment:
    """Return the experiment that EXP names, changed by SET and DATA_DIR."""
    return load_experiment(options.experiment or DEFAULT_EXPERIMENT, _overrides(options))


def _to_prepare(experiment: Experiment) -> Experiment:
    """Return an experiment whose data, weights and backend are there, as far as can be seen at once."""
    check_data(experiment)
    settle_weights(experiment)
    check_backend()
    return experiment


def train(options: argparse.Namespace) -> int:
    """Train an experiment, or that of an earlier run."""
    overrides = _overrides(options)
    overrides += [f"training.epochs={options.epochs}"] if options.epochs else []
    overrides += [f"seed={options.seed}"] if options.seed else []
    if options.from_run and options.experiment:
        raise UserError("train: received both EXP and FROM; EXP trains a file, FROM the experiment of a run")
    if options.from_run:
        run = find_run(options.from_run)
        experiment = load_run_experiment(run, overrides)
    else:
        experiment = load_experiment(options.experiment or DEFAULT_EXPERIMENT, overrides)
    if options.seeds < 1:
        raise UserError(f"train: SEEDS={options.seeds}; train once at least")
    if options.seeds > 1 and (options.workers > 1 or not is_alone()):
        raise UserError(
            "train: SEEDS= trains several runs, one after the other; several workers train one run"
        )
    check_folder(runs_root() / experiment.name)
    dataset = None
    if is_alone():
        settle_weights(experiment)  # which the run does for itself: see that they are there
        dataset = load_images(experiment) if options.workers == 1 else None
    command = ["train", *([options.experiment] if options.experiment else [])]
    command += ["--from", str(run.path)] if options.from_run else []
    command += ["--set", shlex.join(overrides)]
    with local_workers(options.workers, command, experiment.name) as group:
        from app.training.train import train  # brings up the backend, which takes seconds

        accuracies = []
        for seed in range(experiment.seed, experiment.seed + options.seeds):
            recorded = None if options.from_run else overrides + [f"seed={seed}"] * (options.seeds > 1)
            one = experiment.model_copy(update={"seed": seed})
            run = train(one, overrides=recorded, dataset=dataset, group=group)
            if options.seeds > 1:
                accuracies.append(100 * read_record(run.metrics, MetricsRecord).headline.val_accuracy)
    if options.seeds > 1:
        low, high = min(accuracies), max(accuracies)
        print(
            f"{options.seeds} seeds: {statistics.mean(accuracies):.2f} % on average, "
            f"{low:.2f} to {high:.2f} %, standard deviation {statistics.stdev(accuracies):.2f}; "
            f"make compare EXPS={experiment.name} draws mean and band"
        )
    return 0


def preview(options: argparse.Namespace) -> int:
    """Draw what can be seen of an experiment before any training."""
    experiment = _to_prepare(_chosen(options))
    from app.doctor.preview import preview  # brings up the backend, which takes seconds

    preview(experiment, sys.stdout)
    return 0


def resume(options: argparse.Namespace) -> int:
    """Go on with a run."""
    run = dataset = None
    if find_group().is_chief:  # other workers are told by the chief, and may have no run folder
        finished = None if options.epochs is not None else False
        run = chosen_run(options, lambda name: newest_run(name, finished=finished))
        with locked(run):
            check_resumable(run, options.epochs)
        if options.workers == 1 and is_alone():
            dataset = load_images(load_run_experiment(run))
            if dataset is not None:
                refuse_or_force(run, changed_data(run, dataset), options.force)
    name = run.path.parent.name if run else "resume"
    with local_workers(options.workers, ["resume"], name) as group:
        from app.training import train as runner

        runner.resume(
            run,
            epochs=options.epochs,
            schedule=options.schedule,
            force=options.force,
            dataset=dataset,
            group=group,
        )
    return 0


def doctor(options: argparse.Namespace) -> int:
    """Check an experiment before it is trained, or find out why a run blew up."""
    if bool(options.run_name) == bool(options.experiment):
        raise UserError(
            "doctor: name an experiment to check (EXP=) or a run that blew up (RUN=), one of the two"
        )
    if options.run_name:
        run = find_run(options.run_name)
        from app.doctor.replay import replay  # brings up the backend, which takes seconds

        replay(run, sys.stdout)
        return 0
    experiment = _to_prepare(_chosen(options))
    from app.doctor.doctor import examine  # brings up the backend, which takes seconds

    return 0 if examine(experiment, sys.stdout) else 1


def prove_resume(options: argparse.Namespace) -> int:
    """Prove that killed runs end as straight ones."""
    if options.kills < 1:
        raise UserError(f"prove-resume: KILLS={options.kills}; kill once at least")
    from app.prove import prove_resume

    name = options.experiment or DEFAULT_EXPERIMENT
    return 0 if prove_resume(name, _overrides(options), options.kills, options.seed, sys.stdout) else 1


def bench(options: argparse.Namespace) -> int:
    """Measure how fast an experiment trains here."""
    if options.rounds < 1:
        raise UserError(f"bench: ROUNDS={options.rounds}; everybody needs a turn at least")
    against = options.against.replace(",", " ").split()
    if not set(against) <= {"keras", "torch"} or len(set(against)) < len(against):
        raise UserError(f"bench: AGAINST={options.against}; there are keras and torch, each once")
    if options.workers != 1 and against:
        raise UserError("bench: received both WORKERS and AGAINST; compare with one worker, or with others")
    experiment = _chosen(options)
    from app.bench import baselines as rival

    for kind in against:
        rival.require(kind, experiment)
    _to_prepare(experiment)
    rival.share_gpu()
    from app import backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up

    if options.workers != 1:
        from app.bench.scaling import bench_scaling

        bench_scaling(experiment, options.workers, options.rounds, sys.stdout)
        return 0
    from app.bench.bench import bench

    bench(experiment, against, options.rounds, sys.stdout)
    return 0


def check(options: argparse.Namespace) -> int:
    """Check experiment files."""
    names = [options.experiment] if options.experiment else list_experiments()
    problems = [] if options.experiment else list(misnamed_files().values())
    for name in names:
        try:
            experiment = load_experiment(name, _overrides(options))
            if options.data_dir:
                check_data(experiment)
        except UserError as error:
            problems.append(str(error))
    if problems:
        raise UserError("\n".join(problems))
    print(f"{len(names)} experiment{'s' if len(names) != 1 else ''} checked, no error")
    return 0


def list_all(options: argparse.Namespace) -> int:
    """List the experiments."""
    names = list_experiments()
    width = max(map(len, names), default=0)
    for name in names:
        runs = list_runs(name)
        count = f"{len(runs)} run{'s' if len(runs) != 1 else ''}" if runs else ""
        try:
            about = load_experiment(name).description
        except UserError:
            about = "has errors: see `make check`"
        print(f"{name:<{width}}  {count:>7}  {about}")
    for line in misnamed_files().values():
        print(line)
    return 0


def models(options: argparse.Namespace) -> int:
    """List the networks, or the layers of one."""
    from app.training import startup  # first: it keeps TensorFlow quiet while it comes up

    startup.configure(seed=0, precision="float32", devices="cpu")
    from app.reports.networks import print_layers, print_networks

    if options.network:
        print_layers(options.network, sys.stdout)
        return 0
    return 0 if print_networks(sys.stdout) else 1


def results(options: argparse.Namespace) -> int:
    """Write the table of results."""
    print("\n".join(write_results_table()))
    return 0
