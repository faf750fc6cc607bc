"""One look for every progress bar of this phase: on stderr, and only where somebody watches."""

from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeElapsedColumn
from rich.text import Text

from sqlquarry.text import visible


def progress(*columns: ProgressColumn, show: bool = True) -> Progress:
    """A rich progress display: description, bar, `columns`, elapsed time."""
    console = Console(stderr=True)
    return Progress(
        _Description(),
        BarColumn(),
        *columns,
        TimeElapsedColumn(),
        console=console,
        disable=not (show and console.is_terminal),
    )


class _Description(ProgressColumn):
    """The task's description as it is: names in it are no markup."""

    def render(self, task: Task) -> Text:
        return Text(visible(task.description, one_line=True))
