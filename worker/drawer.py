"""The process that draws generations, ``core.draw``: started when there is something to draw, and kept.

It has the models in its memory, so it outlives a generation; it ends by itself when it was idle for long. A
request that finds it ended starts it anew. Like a trainer it is executed afresh and dies with this process.
"""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Generator
from typing import IO, Any

from store.settings import Settings

POLL_SECONDS = 0.1
STOP_PATIENCE_SECONDS = 30.0
NICENESS = 10
"""Trainings of the same machine go first."""

Answer = dict[str, Any]


class DrawerLostError(Exception):
    """The process ended without an answer.

    Attributes
    ----------
    was_idle
        Whether it ended by itself, as it does when nothing was asked for long.
    """

    def __init__(self, words: str, *, was_idle: bool) -> None:
        super().__init__(words)
        self.was_idle = was_idle


class DrawingStopped(Exception):  # noqa: N818 - not an error: what was asked for
    """The drawing was given up as asked."""


class Drawer:
    """Owns the process; used by one thread, which must live as long as the process shall.

    Parameters
    ----------
    settings
        The teachers, the device and what may be kept in memory.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._process: subprocess.Popen[str] | None = None
        self._answers: queue.SimpleQueue[Answer | None] = queue.SimpleQueue()

    def draw(self, request: Answer, is_wanted: Callable[[], bool]) -> Generator[Answer, None, None]:
        """Send a request and yield its answers as they come, up to the last one.

        Whoever closes the generator before has the drawing stopped.

        Parameters
        ----------
        request
            As `core.draw` reads it.
        is_wanted
            Asked time and again; once it says no, the drawing is given up.

        Raises
        ------
        DrawerLostError
            If the process ends in the midst of it.
        DrawingStopped
            If it was given up.
        """
        self._send(request)
        may_repeat = True
        while True:
            try:
                answer = self._next_answer(request["id"], is_wanted)
            except DrawerLostError as error:
                if not (may_repeat and error.was_idle):
                    raise
                self._send(request)  # it was about to end when the request came
                continue
            finally:
                may_repeat = False
            if answer["type"] == "stopped":
                raise DrawingStopped
            is_last = answer["type"] in ("done", "failed")
            try:
                yield answer
            except GeneratorExit:
                if not is_last:
                    self._write({"stop": request["id"]})
                raise
            if is_last:
                return

    def close(self) -> None:
        """End the process."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()
            for stream in (process.stdin, process.stdout):
                _close(stream)

    def _send(self, request: Answer) -> None:
        """Write a request, to a new process if the last one has ended meanwhile."""
        if self._process is not None and self._write(request):
            return
        self.close()
        self._start()
        if not self._write(request):
            raise self._lost()

    def _write(self, content: Answer) -> bool:
        if self._process is None or self._process.stdin is None or self._process.poll() is not None:
            return False
        try:
            self._process.stdin.write(json.dumps(content) + "\n")
            self._process.stdin.flush()
        except OSError:
            return False
        return True

    def _next_answer(self, request_id: str, is_wanted: Callable[[], bool]) -> Answer:
        patience = STOP_PATIENCE_SECONDS
        while True:
            try:
                answer = self._answers.get(timeout=POLL_SECONDS)
            except queue.Empty:
                if is_wanted():
                    continue
                if patience == STOP_PATIENCE_SECONDS:
                    self._write({"stop": request_id})
                patience -= POLL_SECONDS
                if patience <= 0:  # a step that long, or a hang: the models are not worth the wait
                    self.close()
                    raise DrawingStopped from None
                continue
            if answer is None:
                lost = self._lost()
                self.close()
                raise lost
            if answer["id"] == request_id:
                return answer

    def _start(self) -> None:
        settings = self._settings
        command = [sys.executable, "-m", "core.draw", "--device", settings.interactive_device]
        command += ["--models-bytes", str(settings.interactive_models_bytes)]
        command += ["--idle-seconds", str(settings.interactive_idle_seconds), "--nice", str(NICENESS)]
        for folder in settings.teachers_dirs:
            command += ["--teachers", str(folder.resolve())]
        self._answers = queue.SimpleQueue()
        self._process = subprocess.Popen(  # noqa: S603  # our own command, no shell
            [sys.executable, "-m", "worker.launch", str(os.getpid()), *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env={**os.environ, "LOG_FORMAT": settings.log_format},
            start_new_session=True,
        )
        threading.Thread(
            target=_read, args=(self._process.stdout, self._answers), name="drawer", daemon=True
        ).start()

    def _lost(self) -> DrawerLostError:
        """Say how the process ended."""
        code = -1 if self._process is None else self._process.wait()
        if code < 0:
            cause = "; the host may have run out of memory" if -code == signal.SIGKILL else ""
            words = f"The process that draws was killed by {signal.Signals(-code).name}{cause}."
        else:
            words = f"The process that draws ended with exit code {code} without saying why."
        return DrawerLostError(words, was_idle=code == 0)


def _read(lines: IO[str], answers: "queue.SimpleQueue[Answer | None]") -> None:
    try:
        for line in lines:
            answers.put(json.loads(line))
    except ValueError:  # the file was closed, or the process died in the midst of a line
        pass
    answers.put(None)


def _close(stream: IO[str] | None) -> None:
    try:
        if stream is not None:
            stream.close()
    except OSError:  # what was not written any more is for nobody
        pass
