"""The run: `sample` makes draws, `load` reads a saved run, both can go on; `concat` joins."""

from sgmcmc.sampling._concat import concat
from sgmcmc.sampling._continuation import load
from sgmcmc.sampling._run import NonFiniteError, Resampled, Run
from sgmcmc.sampling._sample import sample

__all__ = [
    "NonFiniteError",
    "Resampled",
    "Run",
    "concat",
    "load",
    "sample",
]
