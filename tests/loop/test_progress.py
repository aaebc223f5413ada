"""Progress: a bar in terminals, plain lines elsewhere, nothing when it is not wanted."""

import io
import sys

import jax
import jax.numpy as jnp
import pytest

import sgmcmc
from sgmcmc import Posterior
from sgmcmc.loop._progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def log_density(theta):
    return -0.5 * jnp.sum(theta**2)


KERNEL = sgmcmc.baoab(Posterior.from_log_density(log_density), 0.1)


def run(progress):
    return sgmcmc.sample(
        jax.random.key(0), KERNEL, jnp.zeros(2), num_chains=3, num_burnin=10, num_samples=30,
        chunk_steps=4, chain_method="vmap", progress=progress,
    )  # fmt: skip


@pytest.mark.parametrize("terminal", [False, True])
def test_nothing_is_written_when_it_is_off(monkeypatch, capsys, terminal):
    """progress=False writes nothing at all."""
    if terminal:
        monkeypatch.setattr(sys, "stderr", Terminal())
    run(progress=False)
    assert (sys.stderr.getvalue() if terminal else capsys.readouterr().err) == ""
    assert capsys.readouterr().out == ""


def test_plain_lines_without_control_characters(capsys):
    """Where the output is no terminal: at most ten lines, of printable characters."""
    run(progress=True)
    text = capsys.readouterr().err
    lines = text.splitlines()
    assert 5 <= len(lines) <= 10
    assert all(c.isprintable() for line in lines for c in line)
    assert "\r" not in text
    assert "40 of 40 steps" in lines[-1]
    for part in ("steps/s", "T ", "finite 3/3"):
        assert part in lines[-1]


def test_a_bar_in_a_terminal(monkeypatch):
    """In a terminal the bar shows steps, rate, temperature and finite flags, and is closed."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    run(progress=True)
    text = terminal.getvalue()
    last = text.rstrip("\n").split("\r")[-1]
    for part in ("sampling: 100%", "40/40", "steps/s", "T ", "finite 3/3"):
        assert part in last
    assert text.endswith("\n")


def test_the_bar_is_closed_when_a_run_fails(monkeypatch):
    """A run that raises leaves no half-drawn line behind."""
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    target = Posterior.from_log_density(lambda theta: jnp.nan * jnp.sum(theta))
    with pytest.raises(sgmcmc.NonFiniteError):
        sgmcmc.sample(jax.random.key(0), sgmcmc.sgld(target, 0.1), jnp.zeros(2), num_chains=3)
    assert "finite 0/3" in terminal.getvalue()
    assert terminal.getvalue().endswith("\n")


class Gone(io.StringIO):
    """A pipe whose reader has left."""

    def write(self, text):
        raise BrokenPipeError(32, "Broken pipe")


@pytest.mark.parametrize("kind", ["none", "closed", "broken", "broken terminal"])
def test_a_run_outlives_its_standard_error(monkeypatch, kind):
    """Progress is not worth a run: without a place to write to there is none."""
    file = {"none": None, "broken": Gone()}.get(kind, io.StringIO())
    if kind == "closed":
        file.close()
    if kind == "broken terminal":
        file = Gone()
        file.isatty = lambda: True
    monkeypatch.setattr(sys, "stderr", file)
    assert run(progress=True).num_samples == 30


def test_the_file_is_the_one_given():
    """A bar writes where it was told to."""
    file = Terminal()
    bar = Progress(10, True, file)
    bar.update(10, "all well")
    bar.close()
    assert "all well" in file.getvalue()
