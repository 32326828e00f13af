"""Small networks with random batch norms, packed; a stand-in dataset; short runs."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from harness.data.standin import write_standin
from harness.deploy.export import pack_network
from harness.deploy.modelfile import MODEL_SCHEMA, Model, ModelSpec
from harness.nn.networks import BinaryNetwork, Block, build_network
from harness.nn.streams import Streams
from harness.spec import NetworkSpec, NormSpec, Recipe, get_mode, load_recipe
from harness.train.record import RunSpec
from harness.train.run import run_training

NORMS = {
    "lasagne": NormSpec("lasagne", 1e-4, 0.1),
    "torch": NormSpec("torch", 1e-5, 0.1),
    "shift": NormSpec("shift", 1e-5, 0.125),
}
SEED = 5


def randomize_norm(block: Block, generator: torch.Generator) -> None:
    """Fill a block's bias and batch norm: gamma of both signs, gamma = 0, exact ties at 0."""
    norm, bias, spread = block.norm, block.layer.bias, block.layer.fan_in**0.5
    uniform = {"generator": generator}
    with torch.no_grad():
        norm.running_mean.normal_(0, spread / 2, **uniform)
        for name in ("running_inv_std", "running_var"):
            if hasattr(norm, name):
                getattr(norm, name).uniform_(0.1, 2, **uniform)
        norm.weight.normal_(**uniform)
        norm.bias.normal_(**uniform)
        bias.normal_(**uniform)
        norm.weight[::7] = 0
        # Dots have the parity of K: these channels meet 0 exactly, and 0 is +1.
        for tied in (slice(1, None, 7), slice(2, None, 7)):
            norm.bias[tied], bias[tied] = 0, 0
            norm.running_mean[tied] = float(block.layer.fan_in % 2)
        norm.weight[2::7] = -norm.weight[2::7].abs() - 0.1


@pytest.fixture
def make_network() -> Callable[..., BinaryNetwork]:
    """Return a builder of randomized networks in evaluation state."""

    def make(
        spec: NetworkSpec,
        image_shape: tuple[int, int, int],
        mode: str = "bnn-det",
        affine: tuple[float, float] | None = (1 / 255, 0.0),
    ) -> BinaryNetwork:
        network = build_network(spec, get_mode(mode), Streams(SEED), image_shape, affine)
        generator = torch.Generator().manual_seed(SEED)
        for block in network.blocks:
            assert isinstance(block, Block)
            randomize_norm(block, generator)
        return network.eval()

    return make


@pytest.fixture
def make_model() -> Callable[..., Model]:
    """Return a packer of networks, as export does for a run's."""

    def make(
        network: BinaryNetwork,
        spec: NetworkSpec,
        image_shape: tuple[int, int, int],
        preprocess: str = "scale",
        state: dict[str, np.ndarray] | None = None,
    ) -> Model:
        layers, tensors = pack_network(network, image_shape, spec)
        tensors |= {f"preprocess.{k}": torch.as_tensor(v) for k, v in (state or {}).items()}
        described = ModelSpec(
            schema=MODEL_SCHEMA,
            dataset="mnist",
            source="standin",
            recipe="theano",
            variant="paper",
            mode="bnn-det",
            seed=SEED,
            preset="test",
            fingerprint="none",
            image_shape=image_shape,
            preprocess=preprocess,
            layers=layers,
        )
        return Model(described, tensors)

    return make


def mlp(norm: str, hidden: tuple[int, ...] = (33, 65)) -> NetworkSpec:
    """Return a small MLP; the output's norm is never shift-based, as in the recipes."""
    last = NORMS["torch" if norm == "shift" else norm]
    return NetworkSpec("mlp", NORMS[norm], last, hidden=hidden)


def convnet(norm: str, width: int = 5, fc: int = 33) -> NetworkSpec:
    """Return a small ConvNet."""
    last = NORMS["torch" if norm == "shift" else norm]
    return NetworkSpec("convnet", NORMS[norm], last, width=width, fc=fc)


@pytest.fixture(params=["mlp", "convnet"])
def kind(request: pytest.FixtureRequest) -> str:
    """Return the kind of network."""
    return str(request.param)


@pytest.fixture(params=list(NORMS))
def network_spec(kind: str, request: pytest.FixtureRequest) -> NetworkSpec:
    """Return a small network's spec, of each kind and norm."""
    return {"mlp": mlp, "convnet": convnet}[kind](request.param)


@pytest.fixture
def blocks(make_network: Callable[..., BinaryNetwork]) -> Callable[..., Block]:
    """Return a builder of single randomized blocks: 40 channels of ``fan_in``, an affine first."""

    def make(norm: str, fan_in: int, affine: tuple[float, float]) -> Block:
        spec = mlp(norm, hidden=(40,))
        block = make_network(spec, (1, 1, fan_in), affine=affine).blocks[0]
        assert isinstance(block, Block)
        return block

    return make


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data folder with the stand-in of MNIST."""
    root = tmp_path_factory.mktemp("data")
    write_standin("mnist", root)
    return root


@pytest.fixture(scope="session")
def train_run(data: Path) -> Callable[..., Path]:
    """Return a trainer of one-epoch runs."""

    def train(
        folder: Path, mode: str = "bnn-det", recipe: str = "theano", **changes: object
    ) -> Path:
        settings = {"network.hidden": [33, 65], "epochs": 1, "network.input_dropout": 0.0}
        settings |= {key.replace("__", "."): value for key, value in changes.items()}
        resolved: Recipe = load_recipe(recipe, "mnist", settings)
        spec = RunSpec(resolved, get_mode(mode), SEED, "test", folder)
        run_training(spec, data, torch.device("cpu"), 60.0)
        return folder

    return train
