"""What a running sweep shows: a line for each trial that has ended, and on a terminal what is going on."""

import shutil
from collections.abc import Sequence
from typing import TextIO

from app.config.sweep import SweepConfig
from app.sweep.trials import Trial
from app.sweep.values import ranked, setting_text, value_of, value_text
from app.wording import aligned, clipped, duration

BEST = 10  # trials in the table at the end


class Display:
    """Writes lines, and below them one that is replaced where the output is a terminal."""

    def __init__(self, sweep: SweepConfig, out: TextIO):
        """Show trials of `sweep` on `out`."""
        self.sweep, self.out = sweep, out
        self._below = ""

    def say(self, text: str) -> None:
        """Write a line."""
        self._erase()
        print(text, file=self.out, flush=True)

    def ended(self, trial: Trial, trials: Sequence[Trial]) -> None:
        """Write the line of a trial that has ended; `trials` are all."""
        if trial.state == "failed":
            result = f"failed: {clipped((trial.reason or '').partition(chr(10))[0], 100)}"
        elif trial.state == "pruned":
            result = f"pruned after {trial.epochs}, {value_text(value_of(trial), self.sweep)}"
        else:
            best = ranked(trials, self.sweep)[:1]
            best_so_far = ", best so far" if best and best[0].number == trial.number else ""
            result = value_text(value_of(trial), self.sweep) + best_so_far
        self.say(f"trial {trial.number}: {result}  {duration(trial.seconds)}  {self._settings(trial)}")

    def show(self, trials: Sequence[Trial]) -> None:
        """Replace the line below by what is trained now and what the best trial is."""
        if not self.out.isatty():
            return
        running = [
            f"trial {trial.number} epoch {len(trial.values) + 1}"
            for trial in trials
            if trial.state == "running"
        ]
        ended = sum(trial.state in ("finished", "pruned", "failed") for trial in trials)
        best = [
            f"best {value_text(value_of(trial), self.sweep)} (trial {trial.number})"
            for trial in ranked(trials, self.sweep)[:1]
        ]
        text = "  ".join([f"{ended} of {self.sweep.trials} trials", *best, *running])
        text = text[: shutil.get_terminal_size().columns - 1]
        if text != self._below:
            self._erase()
            self._below = text
            print(text, end="", file=self.out, flush=True)

    def close(self) -> None:
        """Take the line below away."""
        self._erase()
        self.out.flush()

    def table(self, trials: Sequence[Trial]) -> None:
        """Write the best trials, and how many there are of each kind."""
        best = ranked(trials, self.sweep)
        states = [trial.state for trial in trials]
        counts = ", ".join(f"{states.count(each)} {each}" for each in dict.fromkeys(sorted(states)))
        self.say(f"{len(trials)} trials: {counts}")
        if not best:
            return
        heading = ["", "trial", self.sweep.objective, *self._names(), "run"]
        rows = [
            [f"{rank}.", str(trial.number), value_text(value_of(trial), self.sweep), *self._texts(trial)]
            + [trial.run or ""]
            for rank, trial in enumerate(best[:BEST], start=1)
        ]
        for line in aligned([heading, *rows], right=(0, 1, 2)):
            self.say(line)

    def _names(self) -> list[str]:
        """Return the last parts of the keys, or all of them where these would be the same."""
        names = [key.rpartition(".")[2] for key in self.sweep.space]
        return names if len(set(names)) == len(names) else list(self.sweep.space)

    def _texts(self, trial: Trial) -> list[str]:
        space = self.sweep.space
        return [clipped(setting_text(trial.settings[key], spec), 30) for key, spec in space.items()]

    def _settings(self, trial: Trial) -> str:
        pairs = zip(self._names(), self._texts(trial), strict=True)
        return "  ".join(f"{name}={text}" for name, text in pairs)

    def _erase(self) -> None:
        if self._below:
            print("\r\x1b[2K", end="", file=self.out)
            self._below = ""
