"""Importing anything of this package settles how torch's threads wait, which OpenMP reads once, as torch is loaded.

By default they spin for milliseconds: beside another program a training of two threads is then 50 to 150 times slower
(docs/decisions.md). Whoever has set one of the variables has it as set.
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"
