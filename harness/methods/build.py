"""The learning rule of a recipe and mode, by name."""

from harness.methods.backprop import Backprop
from harness.methods.base import Method
from harness.methods.ebp import Ebp
from harness.methods.staged import Staged
from harness.nn import gpu
from harness.nn.networks import BinaryNetwork
from harness.nn.streams import Streams
from harness.spec import Mode, Recipe


def build_method(recipe: Recipe, mode: Mode, network: BinaryNetwork, streams: Streams) -> Method:
    """Return the rule that trains ``network``, built in :meth:`Recipe.deployed_mode`.

    Expectation backpropagation has no float form: the float twin of its network is trained by
    back-propagation. On a GPU the filters are laid channels last first, as optimizers keep their
    order.
    """
    weight = next(network.parameters())
    if gpu.holds(weight):
        network.lay_channels_last()
    kind = recipe.method.kind
    if kind in ("bitwise", "ternary"):
        return Staged(recipe, mode, network, streams)
    if kind == "ebp" and mode.name != "float":
        return Ebp(network, streams)
    return Backprop(recipe, network, streams)
