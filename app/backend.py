"""What the environment says of Keras' backend and of numbers of threads, read before Keras is imported.

Keras and its backends end in a traceback where they are told what they do not know.
"""

import importlib.util
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from app.config.wording import nearest, received
from app.errors import UserError
from app.paths import shown

BACKENDS = ("tensorflow", "jax")
_WHOLE = (re.compile("[0-9]{1,6}"), "must be a whole number")
_NUMBERS = {
    "TF_NUM_INTRAOP_THREADS": _WHOLE,
    "TF_NUM_INTEROP_THREADS": _WHOLE,
    "OMP_NUM_THREADS": (
        re.compile("[1-9][0-9]{0,5}( *, *[1-9][0-9]{0,5})*"),
        "must be a whole number from 1 on",
    ),
}
_LIMITS = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH")
_JSON_KEYS = {
    "floatx": ("float16", "float32", "float64"),
    "image_data_format": ("channels_last", "channels_first"),
}


def check_backend(environment: Mapping[str, str] = os.environ) -> None:
    """See that Keras can come up.

    Raises:
        UserError: KERAS_BACKEND or keras.json name what does not exist, the backend is not installed, or a
            variable is no number.
    """
    for name, (pattern, rule) in _NUMBERS.items():
        if environment.get(name) and not pattern.fullmatch(environment[name].strip()):
            raise UserError(f"{name}: {rule}; got {received(environment[name])}. Leave it out for all cores")
    for name in _LIMITS:
        if environment.get(name):
            raise UserError(f"{name}: cuts every training of Keras short; leave it out (make train EPOCHS=2)")
    file = _keras_home(environment) / "keras.json"
    settings = _read(file)
    source, backend = "KERAS_BACKEND", environment.get("KERAS_BACKEND")
    if not backend:
        source, backend = f"{shown(file)}: backend", settings.get("backend", BACKENDS[0])
    if backend not in BACKENDS:
        meant = nearest(backend, BACKENDS) if isinstance(backend, str) else None
        guess = f"; did you mean '{meant}'?" if meant else ""
        raise UserError(
            f"{source}: must be one of {', '.join(BACKENDS)}, on which this program trains; got "
            f"{received(backend)}{guess}"
        )
    if backend != BACKENDS[0] and not _installed(backend):
        raise UserError(
            f"{source}: {backend} is not installed here; leave it out to train on {BACKENDS[0]}, or install "
            f"it: .venv/bin/python -m pip install {backend}"
        )
    for library in ("keras", *BACKENDS[: backend == BACKENDS[0]]):
        if not _installed(library):
            raise UserError(
                f"{library} is not installed, or not whole: `make clean install` makes the installation anew"
            )


def _keras_home(environment: Mapping[str, str]) -> Path:
    """Return the folder in which Keras looks for keras.json."""
    if "KERAS_HOME" in environment:
        return Path(environment["KERAS_HOME"]).expanduser()
    home = Path("~").expanduser()
    return (home if os.access(home, os.W_OK) else Path("/tmp")) / ".keras"


def _read(file: Path) -> dict[str, Any]:
    """Return the settings in keras.json, none where there is no such file."""
    if not file.exists():
        return {}
    advice = "; mend it, or delete it: Keras writes it anew"
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{shown(file)}: cannot be read ({error}){advice}") from error
    if not isinstance(settings, dict):
        raise UserError(f"{shown(file)}: must be a mapping of keys; got {received(settings)}{advice}")
    for key, allowed in _JSON_KEYS.items():
        if key in settings and settings[key] not in allowed:
            rule = f"must be one of {', '.join(allowed)}; got {received(settings[key])}"
            raise UserError(f"{shown(file)}: {key}: {rule}{advice}")
    if not isinstance(settings.get("epsilon", 1e-7), float):
        raise UserError(f"{shown(file)}: epsilon: must be a number such as 1e-07{advice}")
    return settings


def _installed(library: str) -> bool:
    """Return whether a library is there, as more than an empty folder of a broken installation."""
    try:
        found = importlib.util.find_spec(library)
    except (ImportError, ValueError):
        return False
    return found is not None and found.origin is not None
