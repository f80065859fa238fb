"""The networks. Each is imported here, so that BaseModule.load can rebuild any of them from its file."""

from models.poet import Poet
from models.transformer_net import TransformerNet

__all__ = ["Poet", "TransformerNet"]
