"""`make sweep`: trials of an experiment with other settings, each an ordinary run.

They lie in a set of runs (app/run_set.py), `runs/<experiment>.sweep/`, beside sweep.json, which says what
they are trials of, and sweep.db, the database of Optuna, unless another one is named.
"""

import contextlib
import dataclasses
import hashlib
import json
import secrets
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TextIO

from app import preflight
from app.config import LABELS, Experiment, trial_experiment
from app.config.training import best_mode
from app.data.datasets import load_dataset
from app.errors import UserError
from app.files import write_json, write_text
from app.paths import shown
from app.runs import Run, locked
from app.sweep.finalists import train_finalists
from app.sweep.page import write_sweep
from app.sweep.trials import SweepSet, read_trials
from app.sweep.verdict import finalist_sentences
from app.wording import counted, install_extra

SQLITE = "SQLite"


def sweep(
    experiment: Experiment, overrides: Sequence[str], jobs: int, storage: str | None, out: TextIO
) -> None:
    """Train the trials of an experiment's sweep that are left, then its finalists, and write its page.

    Args:
        experiment: With its `sweep`; its space is checked.
        overrides: The `key=value` changes to the experiment's file that led to it.
        jobs: Worker processes, from 1 to the number of cores.
        storage: The address of a PostgreSQL database that machines share; None for a file in the folder.
        out: Receives what was done.

    Raises:
        UserError: Something that the user can mend.
        Interrupted: A signal; the same call goes on.
    """
    try:
        import optuna  # noqa: F401 - an extra
    except ImportError as error:
        raise UserError(
            f"sweep: needs the extra 'sweep', which `make sweep` installs: {install_extra('sweep')}"
        ) from error
    from sqlalchemy.engine import URL

    from app.sweep.engine.coordinator import Coordinator
    from app.sweep.engine.ledger import Ledger
    from app.sweep.engine.study import Study

    experiment = preflight.settle_weights(experiment)
    url, database = _database(storage)
    fingerprint, num_images = _data_of(experiment)
    epochs = experiment.with_epochs_for(num_images).training.num_epochs
    found = _find_sweep(experiment, overrides, fingerprint, database)
    folder, experiment = found.folder, found.experiment
    config = experiment.sweep
    assert config is not None
    host = socket.gethostname()
    logs = folder / f"workers-{host}"
    logs.mkdir(exist_ok=True)
    with locked(Run(logs if storage else folder)):
        with _storage_errors(database):
            write_json(found.path, found.record.content)
            mark = folder / f"owner-{host}"  # another machine may have the same name and paths
            if storage and not mark.is_file():
                write_text(mark, secrets.token_hex(4))
            owner = f"{host}:{folder}#{mark.read_text('utf-8')}" if storage else None
            url = url or URL.create("sqlite", database=str(folder / "sweep.db")).render_as_string()
            study = Study(url, found.record.study, config, experiment.seed, owner, epochs)
            study.give_back_lost(own=True)
            ledger = Ledger(found, study, out)
            trials = ledger.write()[: config.trials]
            ended = sum(trial.state not in ("waiting", "running") for trial in trials)
            if storage and "precision" in experiment.training.auto:
                words = "auto may be another format on another machine, with other results"
                print(f"training.precision: {words}; give the format itself", file=out)
            print(
                f"{ended} of {config.trials} trials have ended in {shown(folder)} ({database}); "
                f"interrupted, the same command goes on. Output of the workers: {shown(logs)}",
                file=out,
                flush=True,
            )
            Coordinator(ledger, jobs, logs).run()
            trials = ledger.write()
            ledger.display.table(trials)
            elsewhere = study.num_running(config.trials) if storage else 0
            finisher = None if elsewhere else study.finisher()
        if elsewhere:
            words = f"{counted(elsewhere, 'trial')} under way on other machines, of which the last one"
            print(f"{words} trains the finalists", file=out, flush=True)
        elif finisher:
            path = write_sweep(folder)
            print(
                f"page {shown(path)}\nfinalists are trained by {finisher.partition('#')[0]}, which ended "
                f"first. Should it be gone for good, one more trial (TRIALS={config.trials + 1}) lets this "
                "machine train them",
                file=out,
                flush=True,
            )
        else:
            finish(folder, out)


def finish(folder: Path, out: TextIO) -> None:
    """Train the finalists of a sweep, or resume that, write its page, and print what was found.

    Args:
        folder: Of the sweep, all of whose trials have ended.
        out: Receives progress and the sentences.

    Raises:
        UserError: A file of the sweep is damaged, or a run cannot be trained.
        Interrupted: As for a training; the same call goes on.
    """
    experiment = SweepSet.read(folder).experiment
    assert experiment.sweep is not None
    write_sweep(folder)  # to be looked at while the finalists are trained
    record = train_finalists(folder, experiment, read_trials(folder), out)
    path = write_sweep(folder)
    sentences = finalist_sentences(record, experiment.sweep) if record else []
    print(f"page {shown(path)}", *sentences, sep="\n", file=out, flush=True)


def _data_of(experiment: Experiment) -> tuple[str, int]:
    """Return the fingerprint of an experiment's data, which are checked, and how many images train."""
    dataset = load_dataset(experiment.dataset)
    preflight.check_dataset(experiment, dataset)
    assert experiment.sweep is not None
    space = experiment.sweep.space
    for key in ("training.batch_size", "training.class_weight", "model.weights"):
        for value in space[key].checked if key in space else ():
            try:
                one = trial_experiment(experiment, {key: value})
            except UserError:
                continue  # it goes with values of other keys alone
            try:
                preflight.check_dataset(preflight.settle_weights(one), dataset)
            except UserError as error:
                reason = str(error).partition("; choose")[0].removeprefix(f"{key}: ")
                raise UserError(f"sweep.space.{key}: {reason}; take this value out of the space") from error
    return dataset.fingerprint, len(dataset.train)


def _find_sweep(
    experiment: Experiment, overrides: Sequence[str], fingerprint: str, database: str
) -> SweepSet:
    """Return the sweep of an experiment and its data, with what its sweep.json is to say from now on.

    Raises:
        UserError: Its trials are in another database.
    """
    found = SweepSet.find(experiment, fingerprint)
    record = found.record
    if record.storage not in ("", database):
        raise UserError(
            f"{shown(found.folder)}: the trials of this sweep are in {record.storage}, not in {database}; "
            "name that one (STORAGE=), or delete the folder to begin anew"
        )
    experiment = _as_recorded(found.experiment, experiment)
    now = {
        "settings": experiment.model_dump(mode="json"),
        "overrides": list(overrides),
        "storage": database,
        "study": record.study or _study_name(experiment, fingerprint, record.starting_weights),
    }
    return dataclasses.replace(found, record=record.model_copy(update=now))


def _as_recorded(kept: Experiment, wanted: Experiment) -> Experiment:
    """Return the settings that a sweep began with, as they are spelt there, and what may differ as wanted.

    Equal settings may be spelt otherwise, such as 1 and 1.0, but the trials have the recorded ones.
    """
    assert kept.sweep and wanted.sweep
    free = {key: getattr(wanted.sweep, key) for key in SweepSet.not_compared["sweep"]}
    labels = {key: getattr(wanted, key) for key in LABELS}
    return kept.model_copy(update=labels | {"sweep": kept.sweep.model_copy(update=free)})


def _study_name(experiment: Experiment, fingerprint: str, weights: str | None) -> str:
    """Return the same name for the same sweep on every machine."""
    settings = experiment.model_dump(mode="json", exclude=SweepSet.not_compared)
    settings["training"]["mode"] = best_mode(experiment.training.monitor)  # a key of earlier commits
    known = [settings, fingerprint, *experiment.optimizer.rate_multipliers] + [weights] * bool(weights)
    content = json.dumps(known, sort_keys=True)
    return f"{experiment.name}-{hashlib.sha256(content.encode()).hexdigest()[:12]}"


def _database(storage: str | None) -> tuple[str | None, str]:
    """Return SQLAlchemy's address of a database, None for a file of the sweep, and its name in messages."""
    if storage is None:
        return None, SQLITE
    from sqlalchemy import create_engine, make_url
    from sqlalchemy.exc import ArgumentError

    try:
        url = make_url(storage)
    except (ArgumentError, ValueError):  # the latter for a port that is no number
        url = None
    kinds = ("postgresql", "postgres", "postgresql+psycopg")
    if url is None or url.drivername not in kinds or not url.database:
        raise UserError(
            "STORAGE: must be postgresql://user:password@host/database, of a database that is there; without "
            "it the trials are kept in a file of the sweep"
        )
    name = f"postgresql://{url.host or 'localhost'}:{url.port or 5432}/{url.database}"
    url = url.set(drivername="postgresql+psycopg")
    with _storage_errors(name):  # before anything is trained or written
        create_engine(url, connect_args={"connect_timeout": 10}).connect().close()
    return url.render_as_string(hide_password=False), name


@contextlib.contextmanager
def _storage_errors(database: str) -> Iterator[None]:
    """Turn what a database refuses into a message."""
    from optuna.exceptions import StorageInternalError
    from sqlalchemy.exc import SQLAlchemyError

    try:
        yield
    except (SQLAlchemyError, StorageInternalError) as error:
        cause = error.__cause__ if isinstance(error, StorageInternalError) else error
        reason = str(getattr(cause, "orig", None) or cause or error).strip().partition("\n")[0].rstrip(".")
        advice = "What is trained is saved; the same command goes on, once it answers"
        if "file is not a database" in reason or "malformed" in reason:
            advice = "The sweep's sweep.db is damaged: restore it from a copy, or delete the sweep's folder"
        raise UserError(f"{database}: {reason}. {advice}") from error
    except RuntimeError as error:  # tables of another version
        if "version" not in str(error):
            raise
        reason, other = str(error).strip().partition(". ")[0], "begin anew in another folder or database"
        raise UserError(f"{database}: {reason}. Install that version, or {other}") from error
