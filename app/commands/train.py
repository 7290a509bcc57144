"""The commands that train, or that check and measure training.

Nothing here imports TensorFlow or Keras at module level, so that what is wrong is found at once.
"""

import shlex
import statistics
import sys
from collections.abc import Sequence
from typing import Annotated, Literal

from app import preflight
from app.commands.options import (
    DEFAULT_EXPERIMENT,
    DataDir,
    Exp,
    Option,
    RunName,
    Set,
    Workers,
    check_seeds,
    checked,
    chosen_experiment,
    chosen_run,
    command,
    overrides_from,
)
from app.config import Experiment, changed_experiment, load_experiment
from app.distributed.cluster import find_group, is_alone
from app.distributed.local_workers import local_workers
from app.errors import Interrupted, UserError
from app.files import check_folder
from app.paths import runs_root
from app.process import unheard
from app.reading import read_record
from app.records import MetricsRecord
from app.runs import find_run, list_runs, locked, newest_run


@command
@unheard()
def train(
    exp: Exp = None,
    from_: Annotated[str | None, Option("train the experiment of an earlier run again", "RUN")] = None,
    set_: Set = (),
    data_dir: DataDir = None,
    epochs: Annotated[str | None, Option("short for --set training.epochs=N", "N")] = None,
    seed: Annotated[str | None, Option("short for --set seed=N", "N")] = None,
    seeds: Annotated[int, Option("train N runs, a seed each", "N")] = 1,
    workers: Workers = 1,
) -> None:
    """Train an experiment into a new run folder."""
    overrides = overrides_from(set_, data_dir)
    overrides += [f"training.epochs={epochs}"] if epochs else []
    overrides += [f"seed={seed}"] if seed else []
    if from_ and exp:
        raise UserError("train: received both EXP and FROM; EXP trains a file, FROM the experiment of a run")
    again = ["train", exp] if exp else ["train"]  # the command that other workers are started with
    if from_:
        run = find_run(from_, "FROM=")
        experiment = preflight.as_trained(run)
        experiment = changed_experiment(experiment, overrides) if overrides else experiment
        again += ["--from", str(run.path)]
    else:
        experiment = load_experiment(exp or DEFAULT_EXPERIMENT, overrides)
    check_seeds("train", experiment.seed, seeds)
    if seeds > 1 and (workers > 1 or not is_alone()):
        raise UserError(
            "train: SEEDS= trains several runs, one after the other; several workers train one run"
        )
    check_folder(runs_root() / experiment.name)
    dataset = None
    if is_alone():
        # One run settles its weights for itself; for the second of several seeds "latest" would be the first.
        settled = preflight.settle_weights(experiment)
        experiment = settled if seeds > 1 else experiment
        dataset = preflight.load_images(experiment) if workers == 1 else None
        if dataset is not None:
            preflight.check_dataset(experiment, dataset)
    with local_workers(workers, [*again, "--set", shlex.join(overrides)], experiment.name) as group:
        from app.training.train import train  # brings up the backend, which takes seconds

        accuracies = []
        for each in range(experiment.seed, experiment.seed + seeds):
            recorded = None if from_ else overrides + [f"seed={each}"] * (seeds > 1)
            one = experiment.model_copy(update={"seed": each})
            before = {known.name for known in list_runs(experiment.name)}
            try:
                run = train(one, overrides=recorded, dataset=dataset, group=group)
            except (Interrupted, UserError) as error:
                first = each + any(run.name not in before for run in list_runs(experiment.name))
                left = experiment.seed + seeds - first
                if not 0 < left < seeds:
                    raise
                advice = f"{error}\nNot begun: {left} more of the {seeds} seeds, from seed={first} on"
                if isinstance(error, Interrupted):
                    raise Interrupted(advice, error.exit_code - 128) from error
                raise UserError(advice) from error
            if seeds > 1:
                metrics = read_record(run.metrics, MetricsRecord)
                accuracies.append(100 * metrics.headline.val_accuracy)
    if seeds > 1:
        print(
            f"{seeds} seeds, {metrics.split} accuracy of the {metrics.headline.which}: "
            f"{statistics.mean(accuracies):.2f} % on average, "
            f"{min(accuracies):.2f} to {max(accuracies):.2f} %, standard deviation "
            f"{statistics.stdev(accuracies):.2f}; make compare EXPS={experiment.name} draws mean and band"
        )


@command
def preview(exp: Exp = None, set_: Set = (), data_dir: DataDir = None) -> None:
    """Draw augmented images and the learning rate before any training."""
    experiment = checked(chosen_experiment(exp, set_, data_dir))
    from app.doctor.preview import preview  # brings up the backend, which takes seconds

    preview(experiment, sys.stdout)


@command
@unheard()
def resume(
    exp: Annotated[
        str | None,
        Option("an experiment: its newest unfinished run (with --epochs: its newest run)", positional=True),
    ] = None,
    run: RunName = None,
    epochs: Annotated[int | None, Option("train to N epochs in all", "N")] = None,
    schedule: Annotated[
        Literal["keep", "stretch"] | None, Option("with --epochs: what becomes of the learning rate")
    ] = None,
    force: Annotated[bool, Option("resume although data, starting weights or versions have changed")] = False,
    workers: Workers = 1,
) -> None:
    """Resume a run that was interrupted."""
    if schedule and epochs is None:
        raise UserError(f"SCHEDULE={schedule}: says what becomes of the schedule with EPOCHS=n; n is missing")
    chosen = dataset = None
    if find_group().is_chief:  # the chief tells the other workers, which may have no run folder
        finished = None if epochs is not None else False
        chosen = chosen_run("resume", exp, run, lambda name: newest_run(name, finished=finished))
        with locked(chosen):
            preflight.check_resumable(chosen, epochs)
        if workers == 1 and is_alone():
            dataset = preflight.load_images(preflight.as_trained(chosen))
            if dataset is not None:
                preflight.refuse_or_force(chosen, preflight.changed_data(chosen, dataset), force)
    with local_workers(workers, ["resume"], chosen.path.parent.name if chosen else "resume") as group:
        from app.training.train import resume  # brings up the backend, which takes seconds

        resume(chosen, epochs=epochs, schedule=schedule, force=force, dataset=dataset, group=group)


@command
def doctor(
    exp: Annotated[str | None, Option("an experiment to check", positional=True)] = None,
    run: Annotated[str | None, Option("a run whose loss was no longer finite", "RUN")] = None,
    set_: Set = (),
    data_dir: DataDir = None,
) -> int:
    """Check an experiment before a long run, or find the layer in which a run became non-finite."""
    if bool(run) == bool(exp):
        raise UserError("doctor: name an experiment (EXP=) or a run that blew up (RUN=), one of the two")
    if run:
        if set_ or data_dir:
            raise UserError("doctor: RUN= repeats what the run did; SET and DATA_DIR go with EXP=")
        chosen = find_run(run)
        from app.doctor.replay import replay  # brings up the backend, which takes seconds

        replay(chosen, sys.stdout)
        return 0
    experiment = checked(chosen_experiment(exp, set_, data_dir))
    from app.doctor.doctor import examine  # brings up the backend, which takes seconds

    return 0 if examine(experiment, sys.stdout) else 1


@command
def find_rate(exp: Exp = None, set_: Set = (), data_dir: DataDir = None) -> None:
    """Draw the loss of an experiment while its learning rate rises, and suggest a peak."""
    experiment = checked(chosen_experiment(exp, set_, data_dir))
    from app.doctor.find_rate import find_rate  # brings up the backend, which takes seconds

    find_rate(experiment, sys.stdout)


@command
@unheard()
def prove_resume(
    exp: Exp = None,
    kills: Annotated[int, Option("number of kills", "N")] = 5,
    seed: Annotated[int, Option("draws the instants", "N")] = 0,
    set_: Set = (),
) -> int:
    """Train straight and with kills, and compare the two runs bit by bit."""
    if kills < 1:
        raise UserError(f"prove-resume: KILLS={kills}; kill once at least")
    from app.bench.prove import prove_resume

    name = exp or DEFAULT_EXPERIMENT
    return 0 if prove_resume(name, overrides_from(set_), kills, seed, sys.stdout) else 1


@command
def bench(
    exp: Exp = None,
    against: Annotated[str, Option("interleaved baselines: keras, torch or both", "BASELINE ...")] = "",
    beside: Annotated[
        Sequence[str], Option("interleave the experiment with each of these alone changed", "KEY=VALUE ...")
    ] = (),
    rounds: Annotated[int, Option("interleaved rounds", "N")] = 7,
    set_: Set = (),
    data_dir: DataDir = None,
    workers: Workers = 1,
) -> None:
    """Measure how fast an experiment trains here, and beside baselines."""
    if rounds < 1:
        raise UserError(f"bench: ROUNDS={rounds}; everybody needs a turn at least")
    baselines = against.replace(",", " ").split()
    if not set(baselines) <= {"keras", "torch"} or len(set(baselines)) < len(baselines):
        raise UserError(f"bench: AGAINST={against}; there are keras and torch, each once")
    if workers != 1 and (baselines or beside):
        other = "AGAINST" if baselines else "BESIDE"
        raise UserError(f"bench: received both WORKERS and {other}; compare with one worker, or with others")
    name, overrides = exp or DEFAULT_EXPERIMENT, overrides_from(set_, data_dir)
    experiment = load_experiment(name, overrides)
    settings = overrides_from(beside, option="BESIDE=")
    changed = {setting: load_experiment(name, [*overrides, setting], "BESIDE") for setting in settings}
    for setting, one in changed.items():
        if differs := _process_settings(one) - _process_settings(experiment):
            key = next(iter(differs))[0]
            raise UserError(
                f"BESIDE={setting}: training.{key} holds for a whole process; bench twice with SET instead"
            )
    from app.bench.baselines import require

    for kind in baselines:
        require(kind, experiment)
    checked(experiment)
    from app import backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up

    if workers != 1:
        from app.bench.scaling import bench_scaling

        bench_scaling(experiment, workers, rounds, sys.stdout)
        return
    from app.bench.bench import bench

    bench(experiment, baselines, rounds, sys.stdout, changed)


def _process_settings(experiment: Experiment) -> set[tuple[str, str]]:
    training = experiment.training
    return {(key, str(getattr(training, key))) for key in ("precision", "devices", "determinism")}
