"""Where the project's folders lie: experiments/, data/ and runs/ under one root."""

import os
import sys
from pathlib import Path

from app.errors import UserError

HOME_VARIABLE = "TRAINER_HOME"


def project_root() -> Path:
    """Return the folder that holds experiments/, data/ and runs/.

    It is the checkout this file lies in, unless the environment variable TRAINER_HOME names another.
    """
    home = os.environ.get(HOME_VARIABLE)
    return Path(home).resolve() if home else Path(__file__).resolve().parents[1]


def check_home() -> None:
    """Raise a UserError where TRAINER_HOME names a folder that does not exist."""
    if not os.path.isdir(project_root()):
        raise UserError(
            f"{HOME_VARIABLE}: {project_root()} is no folder; name the one that holds experiments/, data/ "
            "and runs/, or leave it out"
        )


def experiments_dir() -> Path:
    """Return the folder of experiment files."""
    return project_root() / "experiments"


def data_root() -> Path:
    """Return the folder in which `data/<dataset>/` is looked for."""
    return project_root() / "data"


def cache_folder() -> Path:
    """Return the folder of decoded images and of fingerprints, which may be deleted at any time."""
    return data_root() / ".cache"


def runs_root() -> Path:
    """Return the folder that receives run folders."""
    return project_root() / "runs"


def shown(path: Path) -> str:
    """Return `path` as a person would type it: relative to the current folder where it lies below it."""
    try:
        return str(Path(path).relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def module_command(module: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
    """Return command and environment that run a module of this program in a process of its own."""
    code = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join([code, *filter(None, [os.environ.get("PYTHONPATH")])])
    return [sys.executable, "-m", module, *arguments], os.environ | {"PYTHONPATH": path}
