"""The ends of trials, written down: in the storage, in the folder, on the screen and on the page."""

import re
import time
from typing import TextIO

from app.files import write_json
from app.reading import read_history, read_record
from app.records import MetricsRecord
from app.runs import Run
from app.sweep.engine.display import Display
from app.sweep.engine.study import Study
from app.sweep.page import is_due, write_sweep
from app.sweep.trials import SweepSet, Trial, write_trials

FAILURES = 5  # with the same reason, before any trial comes further, after which the sweep stops


class Ledger:
    """Keeps a sweep's study, the files that are made from it, and its time; `out` is the display's."""

    def __init__(self, found: SweepSet, study: Study, out: TextIO):
        self.found, self.base = found, found.experiment  # which the settings of a trial change
        assert self.base.sweep is not None
        self.folder, self.record, self.sweep = found.folder, found.record, self.base.sweep
        self.study, self.display = study, Display(self.sweep, out)
        self.begun = time.monotonic()
        self._drawn = True  # whether the page shows what has ended
        came_further = any(trial.state in ("finished", "pruned") for trial in study.view())
        self._failures: list[str] | None = None if came_further else []  # the reasons, until a trial does

    @property
    def seconds(self) -> float:
        """How long `make sweep` worked in this folder, all calls together."""
        return self.record.seconds + time.monotonic() - self.begun

    def keep_time(self) -> None:
        """Write the time into sweep.json."""
        write_json(self.found.path, self.record.content | {"seconds": round(self.seconds, 1)})

    def write(self) -> list[Trial]:
        """Bring trials.json up to date, and return the trials."""
        trials = self.study.view()
        write_trials(self.folder, trials)
        self.display.show(trials)
        return trials

    def finish(self, number: int, run: Run, seconds: float = 0.0) -> None:
        """End a trial with the result of its finished run."""
        objective = self.sweep.objective
        values = [row[objective] for row in read_history(run.history)]
        self.study.report(number, run.name, values, ask=False)
        value = read_record(run.metrics, MetricsRecord).headline.content.get(objective)
        reason = f"{objective} is not finite at the epoch that the run reports" if value is None else None
        self.end(number, value=value, reason=reason, seconds=seconds)

    def end(
        self, number: int, *, value: float | None = None, reason: str | None = None, seconds: float = 0.0
    ) -> None:
        """End a trial; see `Study.end`."""
        self.study.end(number, value=value, reason=reason, seconds=seconds)
        trials = self.write()
        self.display.ended(trials[number], trials)
        self._drawn = False
        if reason is None:
            self._failures = None
        elif self._failures is not None:
            self._failures.append(reason)

    def draw(self) -> None:
        """Bring the page up to date where a trial has ended."""
        if self._drawn or not is_due(self.folder):
            return
        self._drawn = True
        try:
            write_sweep(self.folder)
        except Exception as error:  # a picture is not worth the night; it is drawn again at the end
            self.display.say(f"the page could not be written ({type(error).__name__}: {error})")

    @property
    def hopeless(self) -> str | None:
        """Why the sweep should stop, where its first trials all failed alike; else None."""
        failures = self._failures or []
        alike = {re.sub(r"\d+(\.\d+)?(e[-+]?\d+)?", "#", reason) for reason in failures}
        if len(failures) < FAILURES or len(alike) > 1:
            return None
        return (
            f"the first {FAILURES} trials all failed, so the sweep stops. The last one:\n{failures[-1]}\n"
            f"Does `make train EXP={self.base.name}` train the experiment as it is? The same command goes on"
        )
