"""Which of several equal processes this one is, where torchrun has started them to share the files of a command.

They do not talk to each other: each does every n-th file. (Training is shared by Lightning Fabric, see trainer.py.)
"""

import os

import torch

from utils.errors import UserError


def rank_and_world() -> tuple[int, int]:
    """(number of this process, number of all) from RANK and WORLD_SIZE, which torchrun sets; (0, 1) without them.

    On a machine with several GPUs "cuda" means GPU number LOCAL_RANK of it from now on. Raises UserError if the two
    make no sense.
    """
    given = [
        os.environ.get(name, default) for name, default in (("RANK", "0"), ("WORLD_SIZE", "1"), ("LOCAL_RANK", "0"))
    ]
    if not all(text.isdecimal() for text in given) or int(given[0]) >= int(given[1]):
        raise UserError(f"RANK={given[0]} of WORLD_SIZE={given[1]}: start by torchrun, or unset these variables")
    rank, world, local = map(int, given)
    if torch.cuda.device_count() > 1:
        torch.cuda.set_device(local % torch.cuda.device_count())
    return rank, world
