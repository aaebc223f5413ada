"""The compiled loop: chunks of steps, chains side by side, progress."""

from sgmcmc.loop._devices import use_cpu_devices

__all__ = [
    "use_cpu_devices",
]
