"""The trials of a sweep in Optuna's storage: proposed, taken, reported, pruned, ended.

Whatever decides what a trial becomes is computed in memory from the storage's content, seeds and numbers, and
then written at once: a kill at any instant leaves nothing half-done, and the next process decides the same.
"""

import contextlib
import math
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import optuna
from optuna.exceptions import ExperimentalWarning, UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import NullPool, create_engine, text

from app.config.sweep import SweepConfig
from app.sweep.engine.decisions import distributions, propose, prunes, settings_of
from app.sweep.trials import Trial
from app.sweep.trials import TrialState as StateName

HEARTBEAT_SECONDS = 5  # between signs of life of a machine that shares the storage with others
GRACE_SECONDS = 30  # after the last of which its trials are given to the others

_STATES: dict[TrialState, StateName] = {
    TrialState.WAITING: "waiting",
    TrialState.RUNNING: "running",
    TrialState.COMPLETE: "finished",
    TrialState.PRUNED: "pruned",
    TrialState.FAIL: "failed",
}


class Taken(NamedTuple):
    """A trial that this process is to train; `begun` where it was, perhaps elsewhere, before."""

    number: int
    settings: dict[str, Any]
    begun: bool


class Study:
    """A sweep's trials in a storage.

    Args:
        url: SQLAlchemy's address of the database.
        name: Of the sweep in it.
        config: The sweep.
        seed: Draws the settings, together with a trial's number.
        owner: Names this process's machine and folder among those that share the storage; None where no
            other does.
        epochs: Planned for a trial.

    Raises:
        SQLAlchemyError, StorageInternalError: The storage cannot be reached; any method may raise the latter.
    """

    def __init__(self, url: str, name: str, config: SweepConfig, seed: int, owner: str | None, epochs: int):
        self.url, self.name, self.config, self.seed = url, name, config, seed
        self.owner, self.epochs = owner, epochs
        heartbeats = warnings.catch_warnings(action="ignore", category=ExperimentalWarning)
        with heartbeats, _one_at_a_time(url):  # two that make the same tables disturb each other
            self.storage = optuna.storages.RDBStorage(
                url,
                engine_kwargs=_engine_kwargs(url),
                heartbeat_interval=HEARTBEAT_SECONDS if owner else None,
                grace_period=GRACE_SECONDS if owner else None,
            )
            self.study = optuna.create_study(
                storage=self.storage, study_name=name, direction=config.direction, load_if_exists=True
            )
        self._id, self.distributions = self.study._study_id, distributions(config.space)

    def view(self) -> list[Trial]:
        """Return all trials, by number."""
        return [self._trial(frozen) for frozen in self._frozen()]

    def num_running(self, most: int) -> int:
        """Return how many of the first `most` trials are being trained somewhere."""
        return sum(trial.state == TrialState.RUNNING for trial in self._frozen()[:most])

    def give_back_lost(self, *, own: bool) -> list[int]:
        """Let trials wait whose processes are dead, and return their numbers.

        Those of other machines have given no sign of life for GRACE_SECONDS. `own` is for where this process
        trains nothing: what runs under its name is of a process before it.
        """
        stale = self.storage._get_stale_trial_ids(self._id) if self.owner else []
        numbers = []
        for trial in self._frozen():
            mine = own and self.owner in (None, trial.user_attrs.get("owner"))
            if trial.state == TrialState.RUNNING and (mine or trial._trial_id in stale):
                self.give_back(trial.number)
                numbers.append(trial.number)
        return numbers

    def take(self, most: int) -> Taken | None:
        """Take a waiting trial, or a new one; None where there is none among the first `most`."""
        while True:
            for trial in self._frozen()[:most]:
                if trial.state == TrialState.WAITING and self._claim(trial.number):
                    settings = settings_of(trial.params, self.config.space)
                    return Taken(trial.number, settings, "owner" in trial.user_attrs)
            with _one_at_a_time(self.url):  # two that know the same trials propose the same
                trials = self._frozen()
                if len(trials) >= most or (params := propose(self.config, self.seed, trials)) is None:
                    return None
                self.study.add_trial(
                    create_trial(state=TrialState.WAITING, params=params, distributions=self.distributions)
                )

    def holds(self, number: int) -> bool:
        """Return whether a taken trial is still this process's: others take what shows no sign of life."""
        trial = self._get(number)
        return trial.state == TrialState.RUNNING and trial.user_attrs.get("owner") == (self.owner or "here")

    def show_life(self, numbers: Sequence[int]) -> None:
        """Tell the other machines that the trials which are trained here are."""
        for number in numbers if self.owner else ():
            self.storage.record_heartbeat(self._trial_id(number))

    def report(self, number: int, run: str, values: Sequence[float], *, ask: bool) -> bool:
        """Write the objective after each epoch of a trial, and return whether to prune it.

        Args:
            number: The trial.
            run: Its run.
            values: The objective after each epoch; those that are known already do no harm.
            ask: Whether pruning is a question: at the end of a training it is not.
        """
        trial, trial_id = self._get(number), self._trial_id(number)
        if trial.user_attrs.get("run") != run:
            self.storage.set_trial_user_attr(trial_id, "run", run)
        for epoch, value in enumerate(values, start=1):
            if trial.intermediate_values.get(epoch) != value:
                self.storage.set_trial_intermediate_value(trial_id, epoch, value)
        if not ask:
            return False
        pruned, attributes = prunes(self.config, self.name, self.epochs, self._frozen(), number, values)
        for key, value in attributes.items():
            if trial.system_attrs.get(key) != value:
                self.storage.set_trial_system_attr(trial_id, key, value)
        return pruned

    def deaths(self, number: int, epochs: int) -> int:
        """Note that a trial's process died after so many epochs; return how often it has at that point."""
        deaths = [*self._get(number).user_attrs.get("deaths", ()), epochs]
        self.storage.set_trial_user_attr(self._trial_id(number), "deaths", deaths)
        return deaths.count(epochs)

    def give_back(self, number: int, seconds: float = 0.0) -> None:
        """Let a trial that is not trained any more wait for somebody to go on with it."""
        trial_id = self._trial_id(number)
        with contextlib.suppress(UpdateFinishedTrialError):  # somebody else has ended it meanwhile
            self._add_seconds(number, seconds)
            self.storage.set_trial_user_attr(trial_id, "owner", "")
            self.storage.set_trial_state_values(trial_id, TrialState.WAITING)

    def end(
        self, number: int, *, value: float | None = None, reason: str | None = None, seconds: float = 0.0
    ) -> None:
        """End a trial: finished with a finite value, failed for a reason, without both pruned."""
        state = TrialState.PRUNED if value is None else TrialState.COMPLETE
        trial_id = self._trial_id(number)
        with contextlib.suppress(UpdateFinishedTrialError):  # somebody else has ended it meanwhile
            self._add_seconds(number, seconds)
            if reason is not None:
                state = TrialState.FAIL
                self.storage.set_trial_user_attr(trial_id, "reason", reason)
            self.storage.set_trial_state_values(trial_id, state, None if value is None else [value])

    def finisher(self) -> str | None:
        """Return which machine trains the finalists; None if it is this one.

        It is the first that asks, until more trials have ended.
        """
        if self.owner is None:
            return None
        ended = sum(trial.state.is_finished() for trial in self._frozen())
        with _one_at_a_time(self.url):
            finisher, known = self.storage.get_study_user_attrs(self._id).get("finalists", ("", -1))
            if ended > known:
                finisher = self.owner
                self.storage.set_study_user_attr(self._id, "finalists", [finisher, ended])
        return None if finisher == self.owner else str(finisher)

    def _frozen(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _trial_id(self, number: int) -> int:
        return self.storage.get_trial_id_from_study_id_trial_number(self._id, number)

    def _get(self, number: int) -> FrozenTrial:
        return self.storage.get_trial(self._trial_id(number))

    def _add_seconds(self, number: int, seconds: float) -> None:
        if seconds:
            before = self._get(number).user_attrs.get("seconds", 0.0)
            self.storage.set_trial_user_attr(self._trial_id(number), "seconds", round(before + seconds, 3))

    def _claim(self, number: int) -> bool:
        """Take a waiting trial for this process, unless another one is quicker.

        The sign of life comes first: killed anywhere in between, the trial is given back when it is too old.
        """
        self.show_life([number])
        try:
            if not self.storage.set_trial_state_values(self._trial_id(number), TrialState.RUNNING):
                return False
        except UpdateFinishedTrialError:
            return False
        self.storage.set_trial_user_attr(self._trial_id(number), "owner", self.owner or "here")
        return True

    def _trial(self, trial: FrozenTrial) -> Trial:
        steps, kept = trial.intermediate_values, trial.user_attrs
        values = [steps.get(epoch, math.nan) for epoch in range(1, max(steps, default=0) + 1)]
        return Trial(
            number=trial.number,
            settings=settings_of(trial.params, self.config.space),
            state=_STATES[trial.state],
            values=tuple(value if math.isfinite(value) else None for value in values),
            value=trial.value if trial.state == TrialState.COMPLETE else None,
            reason=kept.get("reason"),
            run=kept.get("run"),
            seconds=kept.get("seconds", 0.0),
        )


def _engine_kwargs(url: str) -> dict[str, Any]:
    """Return what SQLAlchemy is to know of a database."""
    if url.startswith("postgresql"):
        return {"pool_pre_ping": True, "connect_args": {"connect_timeout": 10}}  # seconds
    return {"poolclass": NullPool}  # a file is quickly opened, and closed after each use


@contextlib.contextmanager
def _one_at_a_time(url: str) -> Iterator[None]:
    """Let one process at a time, of all machines that share a database, do what follows."""
    with contextlib.ExitStack() as stack:
        if url.startswith("postgresql"):
            engine = create_engine(url, **_engine_kwargs(url))
            stack.callback(engine.dispose)
            lock = text("SELECT pg_advisory_xact_lock(20261129)")  # any number of ours
            stack.enter_context(engine.begin()).execute(lock)
        yield
