"""`fit` is the plain optax loop: the same numbers, one trace, nothing lost on the way."""

import copy
import os
import pickle
import signal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import sgmcmc
from sgmcmc import streams
from sgmcmc._tree import named_leaves
from sgmcmc.loop import _driver as driver
from sgmcmc.optim import _fit as fits
from sgmcmc.optim._fit import evaluated
from tests.breaks import Break, at_event, each_line_once
from tests.compare import assert_same_tree

ROWS = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
START = {"w": jnp.ones(3), "b": jnp.zeros(())}


def losses(params, rows):
    """(n,) squared distances."""
    return jnp.sum((rows - params["w"]) ** 2, axis=1) + (params["b"] - 1) ** 2


def mean_loss(params, rows):
    return jnp.mean(losses(params, rows))


def fit(loss=mean_loss, params=START, data=ROWS, **options):
    given = {"optimizer": optax.adam(0.1), "batch_size": 10, "progress": False} | options
    if "num_steps" not in given and "num_epochs" not in given:
        given["num_steps"] = 12
    return sgmcmc.optim.fit(jax.random.key(0), loss, params, data, **given)


def by_hand(optimizer, num_steps, batch_size=10):
    """An ordinary loop over the same batches: parameters, losses and the optimizer's state."""
    optimizer = optax.with_extra_args_support(optimizer)
    key = jax.random.split(jax.random.key(0))[0]
    params, state, trace = START, optimizer.init(START), []
    for t in range(num_steps):
        rows = streams.rows_at(streams.reshuffled(), jax.random.clone(key), t, 50, batch_size)
        mask = np.ones(batch_size) if rows.mask is None else np.asarray(rows.mask)
        chosen = ROWS[np.asarray(rows.index)[mask > 0]]
        value, gradient = jax.value_and_grad(mean_loss)(params, chosen)
        updates, state = optimizer.update(
            gradient, state, params, value=value, grad=gradient,
            value_fn=lambda params, rows=chosen: mean_loss(params, rows),
        )  # fmt: skip
        params = optax.apply_updates(params, updates)
        trace.append(value)
    return params, np.array(trace), state


@pytest.mark.parametrize(
    ("loss", "batch_size"), [(losses, 10), (losses, 20), (mean_loss, 20)],
    ids=["exact", "each", "means"],
)  # fmt: skip
def test_the_plain_loop(loss, batch_size):
    """Parameters and losses are the ordinary loop's; padded rows of a short batch do not count,
    neither for a loss of each example nor for a mean."""
    optimizer = optax.adam(optax.cosine_decay_schedule(0.1, 12))
    found = fit(loss, optimizer=optimizer, batch_size=batch_size)
    params, trace, _ = by_hand(optimizer, 12, batch_size)
    np.testing.assert_allclose(found.losses, trace, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found.params, params)
    assert found.num_steps == found.gradient_evaluations == 12
    assert not found.interrupted
    assert "12 steps, 12 gradients" in repr(found)
    np.testing.assert_array_equal(START["w"], 1.0)


def of_one(params, rows):
    """A loss whose value is Σ_i w_i over its rows: its gradient counts them."""
    return jnp.mean(params[rows.astype(int)])


@pytest.mark.parametrize("replicas", [None, 2])
def test_an_epoch_in_a_fixed_order_counts_each_example_alike(replicas):
    """Ten examples in batches of 4, 3 and 3: after an epoch of plain descent on the mean of
    w_i each w_i has moved by the same, K/N = .3; per batch it is n_j K/N · 1/n_j."""
    params = np.zeros(10 if replicas is None else (replicas, 10), np.float32)
    found = fit(
        of_one, jnp.asarray(params), np.arange(10.0, dtype=np.float32), batch_size=4,
        optimizer=optax.sgd(1.0), stream="cyclic", num_epochs=1, num_replicas=replicas,
    )  # fmt: skip
    np.testing.assert_allclose(found.params, params - 0.3, rtol=1e-6)


def padded_rows(order, key, counter, data_size, batch_size):
    return streams.Rows(jnp.arange(batch_size), jnp.arange(batch_size) < 2)


def test_a_mean_with_padding_of_ones_own():
    """A loss of shape () would count the rows that another's stream pads its batches with."""
    own = streams.Stream("own", padded_rows, law="sweep")
    with pytest.raises(ValueError, match=r'loss: got shape \(\) with the stream "own"'):
        fit(stream=own)
    assert np.isfinite(fit(losses, stream=own).losses).all()


def test_one_trace_and_no_bit_changed():
    """However a fit is cut up, and however often it is called: one trace, the same bits."""
    traces = []

    def traced(params, rows):
        traces.append(None)
        return mean_loss(params, rows)

    optimizer = optax.adam(0.1)
    whole = fit(traced, optimizer=optimizer, num_epochs=4, chunk_steps=100)
    once = len(traces)
    for options in ({"chunk_steps": 3}, {"evaluate": lambda s: None, "evaluate_every": 7}):
        parts = fit(traced, optimizer=optimizer, num_epochs=4, **options)
        np.testing.assert_array_equal(parts.losses, whole.losses)
        np.testing.assert_array_equal(parts.params["w"], whole.params["w"])
    fit(traced, optimizer=optimizer, num_steps=9)
    assert len(traces) == once


def test_one_trace_where_a_state_has_weak_types():
    """A state begun with Python's own numbers is compiled for once too."""
    traces = []

    def traced(params, rows):
        traces.append(None)
        return mean_loss(params, rows)

    def update(updates, state, params=None):
        return jax.tree.map(lambda g: -0.1 * g, updates), (state[0] + 1, 0.5 * state[1])

    plain = optax.GradientTransformation(lambda params: (0, 1.0), update)
    fit(traced, optimizer=plain, chunk_steps=1, num_steps=1)
    once = len(traces)
    found = fit(traced, optimizer=plain, chunk_steps=1)
    assert len(traces) == once
    assert found.optimizer_state[0] == 12


def test_full_batches_and_no_data():
    """Without a batch size a step sees all data; without data the loss has one argument."""
    found = fit(batch_size=None, optimizer=optax.sgd(0.5), num_steps=1)
    np.testing.assert_allclose(found.params["w"], ROWS.mean(axis=0), atol=1e-6)
    found = fit(lambda p: jnp.sum((p["w"] - 3) ** 2), data=None, batch_size=None,
                optimizer=optax.sgd(0.5), num_steps=1)  # fmt: skip
    np.testing.assert_allclose(found.params["w"], 3.0, rtol=1e-6)


def _log_likelihood(params, rows):
    return -losses(params, rows)


def _log_prior(params):
    return -5.0 * jnp.sum(params["w"] ** 2)


def test_a_posterior():
    """The loss of a posterior is U/N."""
    posterior = sgmcmc.Posterior(_log_likelihood, _log_prior, data_size=50)
    found = fit(posterior, batch_size=None, num_steps=1)
    np.testing.assert_allclose(found.losses[0], mean_loss(START, ROWS) + 5 * 3 / 50, rtol=1e-5)


def entropy(**options):
    given = {"precision": 1.0, "step_size": 0.1, "num_steps": 5} | options
    return sgmcmc.optim.entropy_sgd(jax.random.key(1), 0.5, **given)


def test_the_anchor_is_evaluated():
    """Inside chains, injected hyperparameters and masks; the inner iterate is in `last`."""
    chain = optax.chain(optax.add_decayed_weights(1e-3), entropy())
    found = fit(optimizer=chain, num_steps=12)  # 2 outer steps, and 2 inner ones
    np.testing.assert_array_equal(found.params["w"], found.optimizer_state[1].anchor["w"])
    assert np.all(found.params["w"] != found.last["w"])
    make = lambda decay: optax.chain(optax.add_decayed_weights(decay), entropy())  # noqa: E731
    wrapped = fit(optimizer=optax.inject_hyperparams(make)(decay=1e-3), num_steps=12)
    np.testing.assert_allclose(wrapped.params["w"], found.params["w"], rtol=1e-5)
    masked = fit(optimizer=optax.masked(entropy(), {"w": True, "b": False}), num_steps=12)
    np.testing.assert_array_equal(
        masked.params["w"], masked.optimizer_state.inner_state.anchor["w"]
    )
    np.testing.assert_array_equal(masked.params["b"], masked.last["b"])
    assert evaluated(optax.adam(0.1).init(START), START) is START


def test_the_average_is_evaluated():
    """Of `weight_average` at the end of a chain: the mean of the parameters after steps 4 to 12."""
    average = sgmcmc.optim.weight_average(4, 1)
    found = fit(optimizer=optax.chain(optax.sgd(0.1), average), num_steps=12)
    each = [fit(optimizer=optax.sgd(0.1), num_steps=t).params["w"] for t in range(4, 13)]
    np.testing.assert_allclose(found.params["w"], np.mean(each, axis=0), rtol=1e-5)
    np.testing.assert_array_equal(found.last["w"], each[-1])


@pytest.mark.parametrize(
    "make",
    [
        lambda: optax.lbfgs(),
        lambda: optax.chain(optax.sgd(1.0), optax.scale_by_backtracking_linesearch(9)),
        lambda: optax.polyak_sgd(0.2),
    ],
    ids=["lbfgs", "backtracking", "polyak"],
)
def test_optimizers_that_evaluate_the_loss(make):
    """A line search sees the step's own batch: the numbers of optax used by hand."""
    found = fit(optimizer=make(), num_steps=4)
    params, trace, _ = by_hand(make(), 4)
    np.testing.assert_allclose(found.losses, trace, rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3), found.params, params)


def test_replicas_search_along_their_mean():
    """Loss and slope are of one mean: two equal replicas on all data are there in four steps."""
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), START)
    found = fit(params=twice, optimizer=optax.lbfgs(), batch_size=None, num_steps=4, num_replicas=2)
    jax.tree.map(lambda x: np.testing.assert_allclose(x[0], x[1]), found.params)
    np.testing.assert_allclose(found.params["w"][0], ROWS.mean(axis=0), atol=1e-4)
    np.testing.assert_allclose(found.params["b"][0], 1.0, atol=1e-4)


def test_the_average_of_schedule_free_is_evaluated():
    """`params` is optax's own evaluation, also where some leaves are masked from it."""
    free = optax.contrib.schedule_free(optax.sgd(0.1), 0.1, b1=0.9)
    optimizer = optax.chain(optax.clip(10.0), free)
    found = fit(optimizer=optimizer)
    last, _, state = by_hand(optimizer, 12)
    wanted = optax.contrib.schedule_free_eval_params(state[1], last)
    close = lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5)  # noqa: E731
    jax.tree.map(close, (found.params, found.last), (wanted, last))
    assert not np.allclose(wanted["w"], last["w"], atol=1e-3)
    masked = optax.masked(free, {"w": True, "b": False})
    state = masked.init(START)
    moved = masked.update(START, state, START)[1]
    seen = evaluated(moved, START)
    assert float(seen["b"]) == float(START["b"])
    assert not np.allclose(seen["w"], START["w"])


def test_evaluations():
    """At the start, every k steps and at the end, with what was spent; snapshots stay valid."""
    kept = []

    def look(snapshot):
        kept.append(snapshot)
        return float(mean_loss(snapshot.params, ROWS))

    found = fit(num_steps=12, evaluate=look, evaluate_every=5)
    assert [e.num_steps for e in found.evaluations] == [0, 5, 10, 12]
    values = [e.value for e in found.evaluations]
    assert values == sorted(values, reverse=True)
    np.testing.assert_array_equal(kept[0].params["w"], 1.0)
    np.testing.assert_array_equal(kept[-1].params["w"], found.params["w"])
    epochs = fit(num_epochs=3, evaluate=look)
    assert [e.num_steps for e in epochs.evaluations] == [0, 5, 10, 15]


def test_replicas():
    """Each has parameters and batches of its own, and costs a gradient a step."""
    params = jax.tree.map(lambda x: jnp.stack([x, x, x + 1]), START)
    found = fit(params=params, num_replicas=3, evaluate=lambda s: s.gradient_evaluations)
    assert found.losses.shape == (12, 3)
    assert found.gradient_evaluations == found.evaluations[-1].value == 36
    assert len(np.unique(found.losses[0])) == 3
    whole = fit(params=params, num_replicas=3, batch_size=None)
    alone = fit(batch_size=None)
    np.testing.assert_allclose(whole.losses[:, 0], alone.losses, rtol=1e-5)
    np.testing.assert_allclose(whole.params["w"][0], alone.params["w"], rtol=1e-5)


def _noisy(params, rows, key):
    return mean_loss(params, rows) + jax.random.normal(key) * jnp.sum(params["w"])


def test_a_random_loss():
    """A new key each step: slopes of the noise differ, and the same fit gives them again."""
    first, second = (fit(_noisy, random_loss=True, optimizer=optax.sgd(0.0)) for _ in range(2))
    assert len(np.unique(first.losses)) == 12
    np.testing.assert_array_equal(first.losses, second.losses)


def network(*sizes):
    """`eqx.nn.MLP`, whose own keys are reused in the eyes of older versions of JAX."""
    first, last = (eqx.nn.Linear(*sizes[i : i + 2], key=jax.random.key(i)) for i in range(2))
    return eqx.nn.Sequential([first, eqx.nn.Lambda(jax.nn.tanh), last])


def test_models_with_other_leaves():
    """Floating arrays are trained, every other leaf stays: activations, counts, flags."""
    model = {"net": network(3, 4, 1), "count": jnp.arange(3)}
    loss = lambda m, rows: jnp.mean(jax.vmap(m["net"])(rows) ** 2)  # noqa: E731
    found = fit(loss, model, num_steps=200, optimizer=entropy())
    assert found.losses[-1] < 0.1 * found.losses[0]
    assert jnp.mean(jax.vmap(found.params["net"])(ROWS) ** 2) < 0.1 * found.losses[0]
    np.testing.assert_array_equal(found.params["count"], np.arange(3))


def test_a_loss_that_is_not_finite():
    """It ends at the first such step, and the trace until then is in the error."""

    def loss(params, rows):
        return jnp.where(params["b"] > 2, jnp.nan, 0.0) - params["b"]

    options = {"optimizer": optax.sgd(1.0), "num_steps": 50, "evaluate": lambda s: s.num_steps}
    with pytest.raises(
        sgmcmc.optim.NonFiniteLossError, match="the loss is not finite at step 3 of 50"
    ):
        fit(loss, **options)
    with pytest.raises(sgmcmc.optim.NonFiniteLossError) as caught:
        fit(loss, evaluate_every=2, **options)
    fitted = caught.value.fitted
    np.testing.assert_array_equal(fitted.losses, [0.0, -1.0, -2.0, np.nan])
    assert [e.value for e in fitted.evaluations] == [0, 2]
    with pytest.raises(sgmcmc.optim.NonFiniteLossError, match="the parameters are not finite"):
        fit(optimizer=optax.sgd(np.inf), num_steps=1)


def test_interruptions():
    """One Ctrl-C ends a fit early; any other error carries what was made."""

    def press(snapshot):
        if snapshot.num_steps == 4:
            os.kill(os.getpid(), signal.SIGINT)

    found = fit(evaluate=press, evaluate_every=2)
    assert found.interrupted
    assert found.num_steps == len(found.losses) == 4
    assert np.all(np.isfinite(found.params["w"]))

    def broken(snapshot):
        if snapshot.num_steps == 4:
            raise RuntimeError("no")

    with pytest.raises(RuntimeError) as caught:
        fit(evaluate=broken, evaluate_every=2)
    assert caught.value.fitted.num_steps == 4
    assert caught.value.fitted.interrupted


def test_progress(capsys):
    """Plain lines say what is going on."""
    fit(progress=True)
    assert "fitting: 12 of 12 steps" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"optimizer": 0.1}, TypeError, "optimizer: got float; expected an optax"),
        ({"num_steps": 3, "num_epochs": 1}, ValueError, "got 3 and 1; expected one of the two"),
        ({"num_steps": None}, ValueError, "got None and None; expected one of the two"),
        ({"num_steps": 0}, ValueError, "num_steps: got 0; allowed: at least 1"),
        ({"num_epochs": 0}, ValueError, "num_epochs: got 0"),
        ({"batch_size": 51}, ValueError, "batch_size: got 51"),
        ({"evaluate_every": 0}, ValueError, "evaluate_every: got 0"),
        ({"num_replicas": 0}, ValueError, "num_replicas: got 0"),
        ({"num_replicas": 2}, ValueError, "leaf b has shape .*num_replicas = 2"),
        ({"params": {"n": 1}}, ValueError, "params: got a pytree without leaves"),
        ({"loss": lambda p, rows: rows}, ValueError, r"loss: got shape \(10, 3\); expected \(\)"),
        ({"loss": 3.0}, TypeError, "loss: got float; expected a function"),
        ({"stream": "sorted"}, ValueError, "stream: got 'sorted'"),
    ],
)  # fmt: skip
def test_bad_input(changed, error, message):
    """Each is named, with what is allowed."""
    with pytest.raises(error, match=message):
        fit(**changed)


def test_epochs_need_data():
    with pytest.raises(ValueError, match="num_epochs: got 2 without data"):
        fit(lambda p: jnp.sum(p["w"]), data=None, batch_size=None, num_epochs=2)


def test_an_exception_at_any_place():
    """At every line of the host's loop: parameters and losses are those of whole chunks.

    Adam's state, momenta and all, is never ahead of the count of the steps.
    """
    # One optimizer, since each has functions of its own, and so a trace.
    options = {"num_steps": 6, "chunk_steps": 2, "optimizer": optax.adam(0.1)}
    made = {steps: fit(**{**options, "num_steps": steps}) for steps in (2, 4, 6)}
    with at_event([driver, fits], -1) as seen:
        fit(**options)
    counts = set()
    for place in each_line_once(seen):
        with at_event([driver, fits], place):
            try:
                fit(**options)
            except Break as error:
                broken = vars(error).get("fitted")
        if broken is None or broken.num_steps == 0:
            continue
        counts.add(broken.num_steps)
        expected = made[broken.num_steps]
        assert_same_tree(broken.params, expected.params)
        assert_same_tree(broken.optimizer_state, expected.optimizer_state)
        np.testing.assert_array_equal(broken.losses, expected.losses)
    assert counts == {2, 4, 6}


def test_a_failure_inside_a_chunk_keeps_the_parameters():
    """An error of the compiled steps comes with the last chunk's parameters, not with None."""

    def fails(value):
        if value > 3:
            raise RuntimeError("out of luck")
        return value

    def loss(params, rows):
        shape = jax.ShapeDtypeStruct((), params["b"].dtype)
        steps = jax.pure_callback(fails, shape, jax.lax.stop_gradient(params["b"]))
        return mean_loss({"w": params["w"], "b": 0.0}, rows) - params["b"] + 0 * steps

    with pytest.raises(Exception, match="out of luck") as caught:
        fit(loss, optimizer=optax.sgd(1.0), num_steps=50, chunk_steps=2)
    fitted = caught.value.fitted
    assert fitted.num_steps == len(fitted.losses) == 4
    assert fitted.params["b"] == 4


def test_errors_and_fits_can_be_pickled():
    """From another process comes what was made, in containers that it can come in."""
    model = {"net": network(3, 2, 1), "rows": jnp.ones(3)}

    def loss(params, rows):
        return jnp.mean(jax.vmap(params["net"])(rows)) * jnp.inf

    for params, lost in ((START, lambda p, rows: jnp.inf * p["b"]), (model, loss)):
        with pytest.raises(sgmcmc.optim.NonFiniteLossError) as caught:
            fit(lost, params, num_steps=3)
        error = pickle.loads(pickle.dumps(caught.value))
        assert type(error) is sgmcmc.optim.NonFiniteLossError
        assert str(error) == str(caught.value)
        assert error.fitted.num_steps == caught.value.fitted.num_steps
        arrays = dict(named_leaves(eqx.filter(caught.value.fitted.last, eqx.is_array)))
        assert_same_tree(dict(named_leaves(error.fitted.last)), arrays)
        copied = copy.deepcopy(caught.value.fitted)
        assert jax.tree.structure(copied.last) == jax.tree.structure(caught.value.fitted.last)
