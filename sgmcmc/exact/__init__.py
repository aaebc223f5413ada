"""Metropolis corrections: samplers that are exact at any step size.

`amagold` and `sggmc` test blocks of minibatch steps by one energy of all data; `mala` and `hmc`
take full gradients and run on BlackJAX. Arguments that are not explained are those of
`sgmcmc.kernels`; `kernel.traits.exact` is True, `run.info.acceptance` has the acceptance
probabilities, and `sample` hands every step `sgmcmc.Blocks(batches, data)`.
"""

from sgmcmc.exact._blackjax import hmc, mala
from sgmcmc.exact._minibatch import amagold, sggmc

__all__ = [
    "amagold",
    "hmc",
    "mala",
    "sggmc",
]
