"""The paper's formulas in plain NumPy and float64: what the tests compare the library with."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


def sign(x: Array) -> Array:
    """Equation 1, sign(0) = +1."""
    return np.where(x >= 0, 1.0, -1.0)


def stochastic_sign(x: Array, uniform: Array) -> Array:
    """Equation 2 with the draws given: +1 where u < hard_sigmoid(x)."""
    return np.where(uniform < np.clip((x + 1) / 2, 0, 1), 1.0, -1.0)


def ap2(z: Any) -> Array:
    """sign(z) 2^round(log2|z|), 0 at 0."""
    z = np.asarray(z, np.float64)
    magnitude = np.where(z == 0, 1.0, np.abs(z))
    return np.where(z == 0, 0.0, np.copysign(np.exp2(np.rint(np.log2(magnitude))), z))


def rows(x: Array) -> Array:
    """[B, C] or [B, C, H, W] -> [rows, C]."""
    return x if x.ndim == 2 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def unrows(x: Array, shape: tuple[int, ...]) -> Array:
    """Undo :func:`rows`."""
    if len(shape) == 2:
        return x
    return np.moveaxis(x.reshape(shape[0], shape[2], shape[3], shape[1]), -1, 1)


@dataclass
class Norm:
    """Batch normalisation of [rows, C]: ``lasagne``, ``torch`` or ``shift`` (Algorithm 3)."""

    kind: str
    eps: float
    momentum: float
    gamma: Array
    beta: Array
    running_mean: Array
    running_spread: Array  # 1/std for lasagne and shift, the unbiased variance for torch
    running: str = "inverse-std"  # of shift: or its variance, or 1/std by the vanilla formula
    cache: dict[str, Array] = field(default_factory=dict)

    def forward(self, x: Array) -> Array:
        mean = x.mean(0)
        centred = x - mean
        if self.kind == "shift":
            variance = (centred * ap2(centred)).mean(0)
        else:
            variance = (centred**2).mean(0)
        inverse_std = 1 / np.sqrt(variance + self.eps)
        newest = inverse_std
        if self.kind == "torch":
            newest = variance * len(x) / (len(x) - 1)
        if self.running == "variance":
            newest = variance
        elif self.running == "vanilla":
            newest = 1 / np.sqrt((centred**2).mean(0) + self.eps)
        self.running_mean = (1 - self.momentum) * self.running_mean + self.momentum * mean
        self.running_spread = (1 - self.momentum) * self.running_spread + self.momentum * newest
        self.cache = {"centred": centred, "inverse_std": inverse_std}
        if self.kind == "shift":
            return ap2(self.gamma) * (centred * ap2(inverse_std)) + self.beta
        return self.gamma * (centred * inverse_std) + self.beta

    def backward(self, g: Array) -> tuple[Array, Array, Array]:
        """Return the gradients by input, gamma and beta."""
        centred, s = self.cache["centred"], self.cache["inverse_std"]
        gamma, slope = self.gamma, centred
        if self.kind == "shift":  # AP2 factors are constants, d var/dC takes AP2(C) for C
            gamma, s, slope = ap2(gamma), ap2(s), ap2(centred)
        by_std = (g * gamma * centred).sum(0)
        by_variance = by_std * -0.5 * s**3
        by_centred = g * gamma * s
        # The mean passes through the centred term alone, as the authors have it: in the vanilla
        # form the other one is zero.
        by_x = by_centred - by_centred.mean(0) + by_variance * 2 * slope / len(g)
        return by_x, (g * centred * s).sum(0), g.sum(0)

    def at_test_time(self, x: Array) -> Array:
        if self.running == "variance":
            scale = ap2(1 / np.sqrt(self.running_spread + self.eps)) * ap2(self.gamma)
        elif self.kind == "shift":
            scale = ap2(self.running_spread) * ap2(self.gamma)
        elif self.kind == "lasagne":
            scale = self.running_spread * self.gamma
        else:
            scale = self.gamma / np.sqrt(self.running_spread + self.eps)
        return (x - self.running_mean) * scale + self.beta


def convolve(x: Array, w: Array) -> Array:
    """3x3 correlation with zero padding of 1."""
    h, side = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    taps = [(i, j) for i in range(3) for j in range(3)]
    return sum(
        np.einsum("bchw,nc->bnhw", padded[:, :, i : i + h, j : j + side], w[:, :, i, j])
        for i, j in taps
    )


def convolve_backward(x: Array, w: Array, g: Array) -> tuple[Array, Array]:
    h, side = x.shape[2:]
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    by_padded, by_w = np.zeros_like(padded), np.zeros_like(w)
    for i in range(3):
        for j in range(3):
            window = (slice(None), slice(None), slice(i, i + h), slice(j, j + side))
            by_w[:, :, i, j] = np.einsum("bnhw,bchw->nc", g, padded[window])
            by_padded[window] += np.einsum("bnhw,nc->bchw", g, w[:, :, i, j])
    return by_padded[:, :, 1:-1, 1:-1], by_w


def pool(x: Array) -> tuple[Array, Array]:
    """2x2 max-pool; the mask marks the first maximum of each window, which takes the gradient."""
    b, c, h, w = x.shape
    windows = x.reshape(b, c, h // 2, 2, w // 2, 2).swapaxes(3, 4).reshape(b, c, h // 2, w // 2, 4)
    first = np.eye(4)[windows.argmax(-1)]
    mask = first.reshape(b, c, h // 2, w // 2, 2, 2).swapaxes(3, 4).reshape(x.shape)
    return windows.max(-1), mask


@dataclass
class Layer:
    """One layer: product, pool, bias, norm, activation, with this step's draws given."""

    weight: Array  # latent
    bias: Array
    norm: Norm
    activation: str  # sign, relu, none
    binary: bool
    pooled: bool = False
    pool_last: bool = False
    gated: bool = True
    used: Array = field(default_factory=lambda: np.empty(0))
    keep: Array | None = None  # dropout factors
    uniform: Array | None = None  # of the stochastic activation
    gradients: dict[str, Array] = field(default_factory=dict)
    cache: dict[str, Array] = field(default_factory=dict)

    def product(self, x: Array) -> Array:
        return convolve(x, self.used) if self.used.ndim == 4 else x @ self.used.T

    def forward(self, x: Array) -> Array:
        if self.used.ndim == 2:
            x = x.reshape(len(x), -1)
        if self.keep is not None:
            x = x * self.keep
        self.cache = {"x": x}
        z = self.product(x)
        if self.pooled and not self.pool_last:
            z, self.cache["mask"] = pool(z)
        y = unrows(self.norm.forward(rows(z) + self.bias), z.shape)
        self.cache["y"] = y
        if self.activation == "sign":
            y = sign(y) if self.uniform is None else stochastic_sign(y, self.uniform)
        elif self.activation == "relu":
            y = np.maximum(y, 0)
        if self.pooled and self.pool_last:
            y, self.cache["mask"] = pool(y)
        return y

    def unpool(self, g: Array) -> Array:
        return g.repeat(2, 2).repeat(2, 3) * self.cache["mask"]

    def backward(self, g: Array) -> Array:
        y, x = self.cache["y"], self.cache["x"]
        if self.pooled and self.pool_last:
            g = self.unpool(g.reshape(len(g), -1, y.shape[2] // 2, y.shape[3] // 2))
        if self.activation == "sign":
            g = g.reshape(y.shape) * (np.abs(y) <= 1 if self.gated else 1)
        elif self.activation == "relu":
            g = g.reshape(y.shape) * (y > 0)
        by_z, by_gamma, by_beta = self.norm.backward(rows(g))
        by_bias = by_z.sum(0)
        by_z = unrows(by_z, y.shape)
        if self.pooled and not self.pool_last:
            by_z = self.unpool(by_z)
        if self.used.ndim == 4:
            by_x, by_w = convolve_backward(x, self.used, by_z)
        else:
            by_x, by_w = by_z @ self.used, by_z.T @ x
        self.gradients = {"weight": by_w, "bias": by_bias, "gamma": by_gamma, "beta": by_beta}
        return by_x if self.keep is None else by_x * self.keep

    def at_test_time(self, x: Array, used: Array) -> Array:
        self.used = used
        z = self.product(x.reshape(len(x), -1) if used.ndim == 2 else x)
        if self.pooled and not self.pool_last:
            z = pool(z)[0]
        y = unrows(self.norm.at_test_time(rows(z) + self.bias), z.shape)
        rule = {"sign": sign, "relu": lambda y: np.maximum(y, 0), "none": lambda y: y}
        y = rule[self.activation](y)
        return pool(y)[0] if self.pooled and self.pool_last else y


def squared_hinge(scores: Array, labels: Array) -> tuple[float, Array]:
    """Return the loss and its gradient."""
    t = 2 * np.eye(scores.shape[1])[labels] - 1
    slack = np.maximum(0, 1 - t * scores)
    return float((slack**2).mean()), -2 * t * slack / scores.size


def train_step(layers: list[Layer], x: Array, labels: Array) -> tuple[float, Array]:
    """Forward and backward (Algorithm 1); fills each layer's gradients."""
    for layer in layers:
        x = layer.forward(x)
    loss, g = squared_hinge(x, labels)
    for layer in reversed(layers):
        g = layer.backward(g)
    return loss, x


@dataclass
class Adam:
    """Lasagne's Adam: epsilon outside the bias correction."""

    beta1: float
    beta2: float
    eps: float
    t: int = 0
    m: Array | float = 0.0
    v: Array | float = 0.0

    def step(self, g: Array, lr: float, scale: float) -> Array:
        """Return what is subtracted from the parameter."""
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        corrected = lr * np.sqrt(1 - self.beta2**self.t) / (1 - self.beta1**self.t)
        return scale * corrected * self.m / (np.sqrt(self.v) + self.eps)


@dataclass
class TorchAdam(Adam):
    """Kingma and Ba's own form: epsilon inside, beside the corrected moment."""

    def step(self, g: Array, lr: float, scale: float) -> Array:
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = self.beta2 * self.v + (1 - self.beta2) * g**2
        mean, square = self.m / (1 - self.beta1**self.t), self.v / (1 - self.beta2**self.t)
        return scale * lr * mean / (np.sqrt(square) + self.eps)


@dataclass
class ShiftAdaMax(Adam):
    """Algorithm 4; ``stored_ap2`` is the released code's rounding of the stored v."""

    stored_ap2: bool = False

    def step(self, g: Array, lr: float, scale: float) -> Array:
        self.t += 1
        self.m = self.beta1 * self.m + (1 - self.beta1) * g
        self.v = np.maximum(self.beta2 * self.v, np.abs(g) + self.eps)
        if self.stored_ap2:
            self.v = ap2(self.v)
        return ap2(lr / (1 - self.beta1**self.t)) * scale * self.m * ap2(1 / self.v)
