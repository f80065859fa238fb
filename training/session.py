"""How a run is interrupted: by SIGINT or SIGTERM between two steps, so that it can be resumed."""

import bdb
import os
import shlex
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lightning_fabric import Fabric

from training.devices import largest
from utils.errors import UserError


class Stopped(Exception):
    """The process was asked to end, by the signal of this number."""


class Session:
    """The signals of a run: the first one ends it after the current step, a second one at once.

    While `resumable` (everything is saved, there are no other processes) the first one ends it at once.
    """

    def __init__(self, fabric: Fabric, folder: Path, say: Callable[[str], None]):
        self.fabric, self.folder, self.say = fabric, folder, say
        self.signal = 0
        self.resumable = False

    def stop_if_asked(self) -> None:
        """Raises Stopped if this process, or another one of the run, got a signal."""
        if number := int(largest(self.fabric, self.signal)):
            raise Stopped(number)

    @contextmanager
    def running(self, save: Callable[[], None], close: Callable[[], None]) -> Iterator[None]:
        """Watches for signals inside. Calls `save` if the run is stopped, unless it is resumable; `close` always."""
        own = os.getpid()  # processes that read data have this handler, too

        def note(number: int, frame: object) -> None:
            self.signal = number
            signal.signal(number, signal.SIG_DFL)
            if self.resumable and os.getpid() == own:
                raise Stopped(number)

        before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        except Stopped as stopped:
            (number,) = stopped.args
            if not self.resumable:
                save()
            self.say(
                f"stopped by {signal.Signals(number).name}, nothing is lost; to go on:\n"
                f"  python main.py train --resume={shlex.quote(str(self.folder))}"
            )
            # The launcher kills everybody as soon as one of the others ends with an error.
            raise SystemExit(128 + number if self.fabric.is_global_zero else 0) from None
        except bdb.BdbQuit:
            raise UserError(f"left the debugger; resume={self.folder} goes on from the last save") from None
        except RuntimeError as error:
            if self.fabric.global_rank and "by peer" in str(error):  # the first process has ended, and has said why
                raise SystemExit(1) from None
            raise
        finally:
            close()
            for number, handler in before.items():
                signal.signal(number, handler)
