"""The coordinator of a sweep on one machine: hands trials to worker processes and notes what they say.

It alone speaks with the storage, holds no TensorFlow, and outlives whatever becomes of a worker.
"""

import functools
import selectors
import signal
import time
from pathlib import Path

from app.config import trial_experiment
from app.errors import Interrupted, UserError
from app.paths import shown
from app.preflight import settle_weights
from app.process import stop_noted
from app.run_set import run_of
from app.runs import Run
from app.sweep.engine.ledger import Ledger
from app.sweep.engine.study import HEARTBEAT_SECONDS, Taken
from app.sweep.engine.worker_process import Worker

TICK_SECONDS = 0.5
DEATHS = 2  # of its processes without a new epoch in between, after which a trial has failed


class Coordinator:
    """Trains the trials of a sweep that are left in `jobs` processes, whose output goes into `logs`."""

    def __init__(self, ledger: Ledger, jobs: int, logs: Path):
        self.ledger, self.study, self.sweep, self.logs = ledger, ledger.study, ledger.sweep, logs
        self.slots: list[Worker | None] = [None] * jobs
        self.workers = selectors.DefaultSelector()  # those that have not ended, by their output
        self.idle = False  # nothing was left to take when it was last asked
        self.ticked = time.monotonic()
        self.ending: str | None = None  # why no trial begins any more; empty where all have ended
        self.refused = False  # whether that is an error
        self.signal = 0

    def run(self) -> None:
        """Train until all trials have ended, the budget is spent or a signal comes.

        Raises:
            Interrupted: A signal; every trial under way has written its state.
            UserError: The sweep cannot go on.
        """
        try:
            with stop_noted(
                functools.partial(setattr, self, "signal"), "stopping: the trials write their states"
            ):
                while self._hand_out() or self.workers.get_map():
                    self.ledger.draw()  # while the workers train
                    for key, _ in self.workers.select(TICK_SECONDS):
                        self._hear(key.data)
                    self._tick()
        finally:
            for key in list(self.workers.get_map().values()):  # after an error
                key.data.stop()
            self.workers.close()
            self.ledger.keep_time()
            self.ledger.display.close()
        if self.signal:
            raise Interrupted(self.ending or "", self.signal)
        if self.refused:
            raise UserError(self.ending or "")
        if self.ending:
            self.ledger.display.say(self.ending)

    def _hand_out(self) -> bool:
        """Give every worker that has none a trial, and return whether there is something to wait for."""
        budget = self.sweep.budget_minutes
        if self.ending is None:
            if self.signal:
                self._stop("stopped; the trials under way are saved, and the same command goes on")
            elif why := self.ledger.hopeless:
                self._stop(why, refused=True)
            elif budget is not None and self.ledger.seconds >= 60 * budget:
                self._stop(f"the budget of {budget:g} minutes is spent; the same command with more goes on")
        for index, worker in enumerate(self.slots):
            if self.ending is None and not self.idle and not (worker and worker.trial):
                if found := self._next():
                    self._begin(index, *found)
                else:
                    self.idle = self.ending is None
        if self.ending is None and not any(worker and worker.trial for worker in self.slots):
            if self.idle and not self.study.num_running(self.sweep.trials):  # on other machines
                tried = len(self.study.view()) < self.sweep.trials
                self._stop("every combination of the space has been tried" if tried else "")
        return self.ending is None

    def _next(self) -> tuple[Taken, Run | None] | None:
        """Take a trial and find its run; None where no trial is left."""
        while taken := self.study.take(self.sweep.trials):
            try:
                experiment = settle_weights(trial_experiment(self.ledger.base, taken.settings))
            except UserError as error:
                self.ledger.end(taken.number, reason=str(error))
                if self.ledger.hopeless:
                    return None
                continue
            same = experiment.dataset == self.ledger.base.dataset
            fingerprint = self.ledger.record.fingerprint if same else None
            run = run_of(self.ledger.folder.name, experiment, fingerprint) if taken.begun else None
            if run and run.finished:  # killed between its last file and the storage
                self.ledger.finish(taken.number, run)
                continue
            return taken, run
        return None

    def _begin(self, index: int, taken: Taken, run: Run | None) -> None:
        """Send a trial to a worker, a new one where there is none."""
        worker = self.slots[index]
        if worker is None:
            log = self.logs / f"worker-{index + 1}.log"
            worker = self.slots[index] = Worker(self.ledger.folder, log, index, len(self.slots))
            self.workers.register(worker.output, selectors.EVENT_READ, worker)
        worker.begin(taken, run.path if run else None)
        self.ledger.write()

    def _stop(self, why: str, *, refused: bool = False) -> None:
        """Begin no more trials, and let those under way write their states."""
        self.ending, self.refused = why, refused
        for key in self.workers.get_map().values():
            key.data.stop()

    def _hear(self, worker: Worker) -> None:
        """Note what a worker says."""
        messages, ended = worker.messages()
        for message in messages:
            if "values" in message:
                self._report(worker, **message)
            else:
                self._outcome(worker, **message)
        if ended:
            self.workers.unregister(worker.output)
            self._release(worker)
            self._mourn(worker, worker.wait())

    def _report(self, worker: Worker, run: str, values: list[float], ask: bool) -> None:
        """Write down the objective of a trial after each epoch, and say whether to prune it, if asked."""
        if worker.trial is None:
            return
        if not self.study.holds(worker.trial.number):  # this machine slept, and another one has it now
            worker.trial = None
            self._release(worker)
            worker.stop()
            return
        worker.values = values
        pruned = self.study.report(worker.trial.number, run, values, ask=ask)
        if ask:
            worker.send({"prune": pruned})

    def _outcome(
        self, worker: Worker, end: str, run: str = "", reason: str | None = None, broken: bool = False
    ) -> None:
        """Write down how a trial ended; a `broken` worker ends."""
        taken, worker.trial = worker.trial, None
        if broken:
            self._release(worker)
        if taken is None or not self.study.holds(taken.number):
            return
        number, seconds, self.idle = taken.number, worker.seconds, False
        if end == "finished":
            self.ledger.finish(number, Run(self.ledger.folder / Path(run).name), seconds)
        elif end in ("pruned", "failed"):  # the one without a reason, the other with one
            self.ledger.end(number, reason=reason, seconds=seconds)
        else:
            self.study.give_back(number, seconds)
            self.ledger.write()
            if end == "refused":
                self._stop(f"trial {number}: {reason}", refused=True)

    def _mourn(self, worker: Worker, code: int) -> None:
        """Give back the trial of a worker that died; it has failed where trying again did not help."""
        taken, worker.trial = worker.trial, None
        if taken is None or not self.study.holds(taken.number):
            return
        number, self.idle = taken.number, False
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        cause = "most likely too little memory" if code == -signal.SIGKILL else f"see {shown(worker.log)}"
        stopping = self.ending is not None or self.signal  # a signal may have reached all processes
        if not stopping and self.study.deaths(number, len(worker.values)) >= DEATHS:
            reason = f"its process {how} {DEATHS} times without a new epoch in between: {cause}"
            self.ledger.end(number, reason=reason, seconds=worker.seconds)
            return
        self.study.give_back(number, worker.seconds)
        self.ledger.write()
        if not stopping:
            self.ledger.display.say(
                f"trial {number}: its process {how} ({cause}); it is resumed from its last state"
            )

    def _release(self, worker: Worker) -> None:
        """Let a new worker take the place of one that ends."""
        self.slots = [None if each is worker else each for each in self.slots]

    def _tick(self) -> None:
        """Show life to other machines, take over from dead ones, and keep the time, now and then."""
        if time.monotonic() - self.ticked < HEARTBEAT_SECONDS:
            return
        self.ticked, self.idle = time.monotonic(), False
        self.study.show_life(
            [key.data.trial.number for key in self.workers.get_map().values() if key.data.trial]
        )
        for number in self.study.give_back_lost(own=False):
            self.ledger.display.say(f"trial {number}: its machine shows no sign of life; another one goes on")
        self.ledger.keep_time()
        self.ledger.display.show(self.study.view())
