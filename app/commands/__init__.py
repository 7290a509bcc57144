"""The commands of `python -m app`, in the order of its help."""

from app.commands import train, recipes, runs, project  # noqa: F401, I001 - registers them
