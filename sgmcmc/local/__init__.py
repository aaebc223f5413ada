"""Local posteriors: the local entropy, its gradient, and the law exp(βF/T)."""

from sgmcmc.local._entropy import (
    LocalEntropy,
    LocalGradient,
    LocalValue,
    Privacy,
    gibbs_privacy,
    local_entropy,
    scoping,
)
from sgmcmc.local._gibbs import gibbs_posterior

__all__ = [
    "LocalEntropy",
    "LocalGradient",
    "LocalValue",
    "Privacy",
    "gibbs_posterior",
    "gibbs_privacy",
    "local_entropy",
    "scoping",
]
