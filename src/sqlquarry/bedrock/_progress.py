"""One look for every progress bar of this phase: on stderr, and only where somebody watches."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn, TimeElapsedColumn


def progress(*columns: ProgressColumn, show: bool = True) -> Progress:
    """A rich progress display: description, bar, `columns`, elapsed time."""
    console = Console(stderr=True)
    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not (show and console.is_terminal),
    )
