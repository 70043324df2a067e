"""How a job looks in a notebook."""

import base64
from collections.abc import Sequence
from html import escape

from client.models import JobState, StoredFile
from client.quantities import duration

MAX_GRID_BYTES = 4 * 2**20
FINAL_GRID = "student/teacher-vs-student.png"
PNG = b"\x89PNG\r\n\x1a\n"
STYLE = "font-family: system-ui, sans-serif; line-height: 1.5; max-width: 60em"


def newest_grid(files: Sequence[StoredFile]) -> StoredFile | None:
    """Find the newest picture of teacher beside student: the exported one, or the last of the training."""
    final = [file for file in files if file.path == FINAL_GRID]
    sampled = [file for file in files if file.kind == "sample" and file.step is not None]
    newest = max(final or sampled, key=lambda file: (file.attempt, file.step or 0), default=None)
    return newest if newest is not None and newest.size <= MAX_GRID_BYTES else None


def job_html(state: JobState, grid: bytes | None = None) -> str:
    """Write a job as HTML.

    Parameters
    ----------
    state
        Of the job.
    grid
        A PNG of teacher beside student; anything else is left out.
    """
    ends = (
        f"ends {state.phase or 'the phase'} in {duration(state.eta_seconds)}" if state.eta_seconds else None
    )
    facts = [
        f"<strong>{escape(state.status)}</strong>",
        *(escape(fact) for fact in (state.phase, f"{state.progress:.0%}", ends) if fact),
    ]
    lines = [
        f"<div>{escape(state.teacher)} → {escape(state.student)} <code>{escape(state.id)}</code></div>",
        f"<div>{' · '.join(facts)}</div>",
    ]
    if not state.has_ended:
        value = f"{min(max(state.progress, 0.0), 1.0):.4f}"
        lines.append(f'<progress value="{value}" max="1" style="width: 20em"></progress>')
    lines += [f"<div>{escape(words)}</div>" for words in (state.message, state.hint) if words]
    if grid is not None and grid.startswith(PNG):
        picture = base64.b64encode(grid).decode("ascii")
        alt = "The teacher's pictures above its student's: same captions, same seeds"
        lines.append(f'<img alt="{alt}" style="max-width: 100%" src="data:image/png;base64,{picture}">')
    return f'<div style="{STYLE}">{"".join(lines)}</div>'
