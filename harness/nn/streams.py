"""Seeded streams of random numbers, one for each use, so that no draw disturbs another."""

import hashlib
from typing import Any

import torch

ON_CPU = ("init", "shuffle")
STREAMS = (*ON_CPU, "dropout", "activations", "weights")


class Streams:
    """One generator each for initial weights, shuffling, dropout and the two stochastic signs.

    ``init`` and ``shuffle`` live on the CPU, so that every device starts from the same weights
    and sees the images in the same order; the others live on ``device``.
    """

    def __init__(self, seed: int, device: torch.device | str = "cpu") -> None:
        self._generators = {}
        for name in STREAMS:
            place = "cpu" if name in ON_CPU else device
            digest = hashlib.sha256(f"{seed}/{name}".encode()).digest()
            generator = torch.Generator(place)
            generator.manual_seed(int.from_bytes(digest[:7], "little"))
            self._generators[name] = generator

    def __getitem__(self, name: str) -> torch.Generator:
        return self._generators[name]

    def on_device(self) -> list[torch.Generator]:
        """Return the generators whose draws are made on the run's device."""
        return [self._generators[n] for n in STREAMS if n not in ON_CPU]

    def state_dict(self) -> dict[str, Any]:
        """Return every generator's state, for a checkpoint."""
        return {name: g.get_state() for name, g in self._generators.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue every stream from a checkpoint's state."""
        for name, generator in self._generators.items():
            generator.set_state(state[name].cpu())
