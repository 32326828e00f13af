"""Which device a command takes, and what it says where there is none."""

import pytest
import torch

from harness.device import check_gpu, device_of
from harness.errors import HarnessError


@pytest.mark.parametrize(("there", "auto"), [(False, "cpu"), (True, "cuda")])
def test_auto_takes_a_gpu_where_there_is_one(
    there: bool, auto: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    assert device_of("auto").type == auto
    assert device_of("cpu").type == "cpu"


@pytest.mark.parametrize(
    ("built", "lacks"),
    [(None, "is built without CUDA"), ("13.0", "finds no CUDA device or no driver for CUDA 13.0")],
)
def test_a_missing_gpu_is_told_from_a_torch_without_cuda(
    built: str | None, lacks: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.version, "cuda", built)
    with pytest.raises(HarnessError, match=f"--device cuda: torch .* {lacks}.*; use --device"):
        device_of("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    check_gpu("--device cuda", "--device cpu")


def test_another_device_is_refused() -> None:
    with pytest.raises(HarnessError, match="must be auto, cpu or cuda; found 'tpu'"):
        device_of("tpu")
