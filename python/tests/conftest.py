import numpy as np
import pytest


@pytest.fixture
def random():
    return np.random.default_rng(20240229)


def definition(q, k, v, bias=None, scale=None, sinks=None):
    """softmax(scale q k^T + bias) v in float64, its lse and its weights."""
    q, k, v = (np.asarray(x, np.float64) for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    k, v = np.repeat(k, groups, 1), np.repeat(v, groups, 1)
    scores = q @ k.swapaxes(-1, -2) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if bias is not None:
        scores = scores + bias
    top = scores.max(-1, keepdims=True, initial=-1e300)
    weights = np.exp(scores - top)
    total = weights.sum(-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks, np.float64).reshape(1, -1, 1, 1) - top)
    with np.errstate(divide="ignore", invalid="ignore"):
        weights = np.where(total > 0, weights / total, 0)
        return weights @ v, (top + np.log(total))[..., 0], weights


def forbidden(allowed):
    return np.where(allowed, 0.0, -np.inf)


def bound(q, k, v, dtype_eps=2.0**-24, scale=None):
    """What F32 sums of D products and a softmax of them may round, and one rounding to the result's type.

    A score of size s is off by (D + 2) s 2^-24 at most, a weight by that relatively, and as much again by its exponential
    and its sums; values are at most max |v|.
    """
    q, k, v = (np.abs(np.asarray(x, np.float64)) for x in (q, k, v))
    groups = q.shape[1] // k.shape[1]
    size = (q @ np.repeat(k, groups, 1).swapaxes(-1, -2)).max() * (q.shape[-1] ** -0.5 if scale is None else abs(scale))
    return v.max() * (2 * (q.shape[-1] + 2) * size * 2.0**-24 + 16 * 2.0**-24 + dtype_eps)
