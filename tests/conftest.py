"""The environment of the tests' processes, set before torch is imported: those that they start inherit it."""

import os
import sys
from pathlib import Path

# One thread each, unless the environment says otherwise: as many processes as cores run at a time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# Where Python is told to keep no bytecode, each of some hundred processes would compile torch anew, for ten seconds.
if os.environ.pop("PYTHONDONTWRITEBYTECODE", ""):
    sys.dont_write_bytecode = False
    sys.pycache_prefix = str(Path(__file__).parents[1] / ".pytest_cache" / "pycache")
    os.environ["PYTHONPYCACHEPREFIX"] = sys.pycache_prefix
