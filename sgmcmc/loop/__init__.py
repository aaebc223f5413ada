"""The compiled loop: chunks of steps, chains side by side, progress.

`sgmcmc.sample` drives it. For benchmarks, and for loops of one's own around it, `chains` stands
at step 0 and `advance` makes some steps as one chunk. A program of several runs in turn stands
within `ctrl_c_ends_all()`.
"""

from sgmcmc.loop._devices import use_cpu_devices
from sgmcmc.loop._driver import ctrl_c_ends_all
from sgmcmc.loop._start import Chains, advance, chains

__all__ = [
    "Chains",
    "advance",
    "chains",
    "ctrl_c_ends_all",
    "use_cpu_devices",
]
