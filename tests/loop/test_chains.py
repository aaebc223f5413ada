"""How chains run side by side: the rule, and chains spread over CPU devices."""

import os
import subprocess
import sys
import textwrap

import jax
import pytest

from sgmcmc.loop import _devices as chains


def process(script):
    """Run Python with this process's paths, warnings as errors."""
    path = os.pathsep.join(p for p in sys.path if p)
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(script)],
        capture_output=True, text=True, timeout=300, check=False,
        env={**os.environ, "PYTHONPATH": path, "JAX_PLATFORMS": "cpu"},
    )  # fmt: skip


@pytest.mark.integration
def test_sharded_chains_equal_unsharded_ones():
    """On two CPU devices every method gives the same draws to rounding, and resumes bit for bit."""
    done = process(
        """
        import sgmcmc
        sgmcmc.use_cpu_devices(2)
        sgmcmc.use_cpu_devices(2)  # the same again is no error
        import jax, jax.numpy as jnp, numpy as np
        assert jax.device_count() == 2
        def likelihood(t, b):
            return -0.5 * (b[1] - b[0] @ t) ** 2
        def prior(t):
            return -0.5 * jnp.sum(t ** 2)
        data = (np.sin(np.arange(27, dtype=np.float32)).reshape(9, 3), np.ones(9, np.float32))
        kernel = sgmcmc.baoab(sgmcmc.Posterior(likelihood, prior, data_size=9), 0.05)
        moments = {"m": sgmcmc.reducers.covariance()}
        def run(method, draws=9):
            return sgmcmc.sample(
                jax.random.key(0), kernel, jnp.ones(3), data, batch_size=2, num_chains=4,
                num_burnin=3, num_samples=draws, thinning=2, chain_method=method,
                progress=False, reducers=moments)
        runs = {m: run(m) for m in ("vmap", "sharded_vmap", "sharded_map", "auto")}
        assert runs["auto"].config["chain_method"] == "sharded_map"
        assert runs["auto"].config["num_devices"] == 2
        for other in runs.values():
            np.testing.assert_allclose(other.draws, runs["vmap"].draws, rtol=2e-4, atol=1e-5)
            moments_of = lambda r: r.reduced["m"][1]
            np.testing.assert_allclose(moments_of(other), moments_of(runs["vmap"]), rtol=1e-3)
        np.testing.assert_array_equal(runs["auto"].draws, runs["sharded_map"].draws)
        part = run("sharded_map", 5)
        longer = part.resume(4, progress=False)
        np.testing.assert_array_equal(longer.draws, runs["sharded_map"].draws)
        try:
            sgmcmc.sample(jax.random.key(0), kernel, jnp.ones(3), data, batch_size=2,
                          num_chains=3, chain_method="sharded_vmap")
        except ValueError as error:
            assert "sharded_vmap" in str(error) and "3 chains on 2 devices" in str(error)
        else:
            raise AssertionError("three chains on two devices")
        try:
            sgmcmc.use_cpu_devices(3)
        except RuntimeError as error:
            assert "use_cpu_devices(3) came too late" in str(error) and "2 CPU" in str(error)
        else:
            raise AssertionError("too late")
        print("all equal")
        """
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "all equal"


def test_use_cpu_devices_too_late_says_so():
    """Once JAX has started, another number of devices is a RuntimeError that says when to call."""
    jax.devices()
    count = jax.local_device_count("cpu") + 1
    with pytest.raises(RuntimeError, match=rf"use_cpu_devices\({count}\) came too late"):
        chains.use_cpu_devices(count)


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_use_cpu_devices_takes_positive_integers(count):
    """Anything but an integer above zero is a ValueError."""
    with pytest.raises(ValueError, match="count: got"):
        chains.use_cpu_devices(count)


def test_one_device_is_never_sharded_by_the_rule():
    """`auto` on one device is map or vmap, recorded by name; an unknown method is refused."""
    if jax.device_count() == 1:
        method, vmapped, devices = chains.choose_method("auto", 4, 10)
        assert (method, devices) in {("map", 1), ("vmap", 1)}
        assert vmapped == (method == "vmap")
    with pytest.raises(ValueError, match="chain_method: got 'pmap'; allowed: auto"):
        chains.choose_method("pmap", 4, 10)
