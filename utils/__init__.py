"""Importing anything of this package settles how torch's threads wait, which OpenMP reads once, as torch is loaded.

They wait for each other by spinning, for milliseconds by default: beside another program that uses all cores, a
training of two threads is then 50 to 150 times slower. With a shorter time it is not, and an idle machine loses little;
with none it loses much (docs/decisions.md). Whoever has set one of the variables has it as set.
"""

import os

if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
    os.environ["GOMP_SPINCOUNT"] = "1000"
