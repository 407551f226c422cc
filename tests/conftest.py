"""What holds for every test: threads that wait do not keep a core busy.

OpenMP's threads spin while they wait for each other. On the small matrices of tests, beside any
other work on the machine, that costs several times the work itself. It is read when the first
library brings OpenMP in, and child processes inherit it; no result depends on it.
"""

import os

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
