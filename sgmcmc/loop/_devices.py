"""How chains run side by side: one fixed rule of sizes, backend and device count."""

from __future__ import annotations

import contextlib

import jax

from sgmcmc._checks import _is_index

METHODS = ("auto", "vmap", "map", "sharded_vmap", "sharded_map")


def use_cpu_devices(count: int) -> None:
    """Let JAX see `count` CPU devices, so that chains can be spread over the cores.

    Call it before the first array is made.

    Raises:
        ValueError: `count` < 1.
        RuntimeError: JAX has started already, with another number of devices.
    """
    if isinstance(count, bool) or not _is_index(count) or count < 1:
        raise ValueError(f"count: got {count!r}; allowed: an integer ≥ 1")
    with contextlib.suppress(RuntimeError):  # JAX has started; it may have as many already
        jax.config.update("jax_num_cpu_devices", int(count))
    if len(jax.devices("cpu")) != count:
        raise RuntimeError(
            f"use_cpu_devices({count}) came too late: JAX has started with "
            f"{len(jax.devices('cpu'))} CPU device(s). Call it before the first array is made"
        )


def choose_method(method: str, num_chains: int, num_parameters: int) -> tuple[str, bool, int]:
    """(method, whether chains are vmapped, devices used) for these sizes.

    The rule of "auto": chains are spread over the devices where their number divides evenly;
    on a device, CPUs take whole chains in turn, and accelerators vmap them.

    Raises:
        ValueError: an unknown method, or chains that the devices do not divide evenly.
    """
    if method not in METHODS:
        raise ValueError(f"chain_method: got {method!r}; allowed: {', '.join(METHODS)}")
    devices = jax.device_count()
    if method == "auto":
        spread = devices > 1 and num_chains % devices == 0
        inner = "map" if jax.default_backend() == "cpu" else "vmap"
        method = f"sharded_{inner}" if spread else inner
    if not method.startswith("sharded"):
        return method, method == "vmap", 1
    if num_chains % devices:
        raise ValueError(
            f"chain_method: got {method!r} for {num_chains} chains on {devices} devices; "
            "the devices must divide the chains evenly"
        )
    return method, method == "sharded_vmap", devices


def method_name(vmapped: bool, devices: int) -> str:
    """The method by which chains run, as `sample` takes it."""
    return ("sharded_" if devices > 1 else "") + ("vmap" if vmapped else "map")
