"""A process that trains trials of a sweep, one after the other, told on its standard input.

`python -m app.sweep.engine.worker FOLDER` reads a line of JSON for each trial and answers with lines of JSON:
the history after each epoch, which is answered by whether to prune, and at last how it ended. The end of the
input asks it to stop, which is also how the end of the coordinator shows: the state is written first.
"""

import json
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from app.bench.json_worker import answer_stream, send
from app.config import trial_experiment
from app.errors import Interrupted, UserError, library_words
from app.process import stoppable
from app.reading import Row
from app.run_set import ChangedError
from app.runs import Run, locked
from app.sweep.trials import Images, SweepSet

Command = dict[str, Any]  # a trial, or the answer to a history; None in the queue is the end of the input


class Pruned(Exception):  # noqa: N818 - no error
    """Ends a training that is not worth going on."""


class Trainer:
    """Trains trials in this process; the data are loaded once."""

    def __init__(self, folder: Path, commands: "queue.Queue[Command | None]", answers: TextIO):
        """Train into `folder`, which holds sweep.json."""
        self.folder, self.commands, self.answers = folder, commands, answers
        self.base = SweepSet.read(folder).experiment
        self.images = Images(folder, self.base)

    def train(self, command: Command) -> Command:
        """Train or resume a trial; return how it ended: `end`, and perhaps `reason` and `run`.

        Args:
            command: `settings`, and `run`, the path of the run that the trial has already, or null.
        """
        from app.training.history import is_complete  # brings up the backend, which takes seconds
        from app.training.train import resume, train

        run, began = Run(Path(command["run"])) if command["run"] else None, False

        def watch(run: Run, rows: Sequence[Row]) -> None:
            nonlocal began
            began = True
            ask = bool(rows) and not is_complete(experiment.with_epochs_for(len(dataset.train)), rows)
            values = [row[objective] for row in rows]
            send({"run": run.name, "values": values, "ask": ask}, self.answers)
            if not ask:
                return
            answer = self.commands.get()
            if answer is None:
                raise Interrupted("the sweep stops", signal.SIGTERM)
            if answer["prune"]:
                raise Pruned

        try:
            assert self.base.sweep is not None
            objective = self.base.sweep.objective
            experiment = trial_experiment(self.base, command["settings"])
            experiment = experiment.model_copy(update={"name": self.folder.name})
            dataset = self.images.of(experiment.dataset)
            if run:
                _wait_for(run)
                run = resume(run, sys.stdout, dataset=dataset, watch=watch)
            else:
                run = train(experiment, sys.stdout, dataset=dataset, watch=watch)
        except Pruned:
            return {"end": "pruned"}
        except Interrupted:
            return {"end": "waiting"}
        except ChangedError as error:
            return {"end": "refused", "reason": str(error)}
        except UserError as error:
            # What ran once can be trained: something else has changed, which is not the settings' fault.
            return {"end": "failed" if began or not run else "refused", "reason": str(error)}
        except OSError as error:  # a full disk, most likely: the next trial would not get further
            where = f"{error.filename}: " if error.filename else ""
            return {"end": "refused", "reason": f"{where}{error.strerror or error}"}
        except Exception as error:
            traceback.print_exc()
            return {"end": "failed", "reason": library_words(error), "broken": True}
        return {"end": "finished", "run": run.name}


def _wait_for(run: Run) -> None:
    """Wait until nobody trains a run: the process of a coordinator that was killed still writes its state."""
    while True:
        try:
            with locked(run):
                return
        except UserError as error:
            print(error, flush=True)
            time.sleep(1)


def _listen(commands: "queue.Queue[Command | None]") -> None:
    """Hand on what comes; ask for a stop at the end of the input, unless a signal did already."""
    for line in sys.stdin:
        commands.put(json.loads(line))
    commands.put(None)
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        os.kill(os.getpid(), signal.SIGTERM)


def main(folder: str) -> None:
    """Be a worker."""
    answers = answer_stream()
    # A terminal sends these to all processes; it is the coordinator that asks for a stop.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    commands: queue.Queue[Command | None] = queue.Queue()
    try:
        with stoppable():
            threading.Thread(target=_listen, args=(commands,), daemon=True).start()
            from app import backend  # noqa: F401 - first: it keeps TensorFlow quiet while it comes up

            trainer = Trainer(Path(folder), commands, answers)
            while (command := commands.get()) is not None:
                end = trainer.train(command)
                send(end, answers)
                if end["end"] == "waiting" or end.get("broken"):
                    return
    except (KeyboardInterrupt, BrokenPipeError):  # asked to stop, or the coordinator is gone
        return


if __name__ == "__main__":
    main(sys.argv[1])
