"""The networks. Each is imported here, so that BaseModule.load can rebuild any of them from its file."""

from models.poet import Poet

__all__ = ["Poet"]
