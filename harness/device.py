"""The device that a command runs on."""

import torch

from harness.errors import HarnessError


def check_gpu(option: str, instead: str) -> None:
    """Refuse ``option`` where torch has no GPU to run on, and say what to use ``instead``.

    Raises:
        HarnessError: what torch lacks.
    """
    if torch.cuda.is_available():
        return
    lacks = "is built without CUDA"
    if torch.version.cuda is not None:
        lacks = f"finds no CUDA device or no driver for CUDA {torch.version.cuda} (nvidia-smi)"
    raise HarnessError(f"{option}: torch {torch.__version__} {lacks}; use {instead}")


def device_of(name: str) -> torch.device:
    """Return the torch device of ``auto``, ``cpu`` or ``cuda``.

    Raises:
        HarnessError: another name, or ``cuda`` where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise HarnessError(f"--device must be auto, cpu or cuda; found {name!r}")
    if name == "cuda":
        check_gpu("--device cuda", "--device cpu or auto")
    usable = torch.cuda.is_available() if name == "auto" else name == "cuda"
    return torch.device("cuda" if usable else "cpu")
