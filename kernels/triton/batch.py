"""A training batch in two small launches: its images out of their store, and its loss."""
# Jit functions are typed by triton, not by mypy.
# mypy: disable-error-code="no-untyped-def, no-untyped-call, untyped-decorator, misc"

import torch
import triton
import triton.language as tl

from kernels.triton.base import check_values, check_vector
from kernels.triton.device import DEVICE, INTERPRETED

PIXELS = 4096 if INTERPRETED else 1024  # of a program
ROWS = 128  # of scores that the program works on at once
WARPS = 4


@triton.jit
def _fetch(pixels_ptr, labels_ptr, chosen_ptr, out_ptr, label_out_ptr, size, PIXELS: tl.constexpr):
    at = tl.program_id(1) * PIXELS + tl.arange(0, PIXELS)
    image = tl.program_id(0).to(tl.int64)
    chosen = tl.load(chosen_ptr + image)
    if tl.program_id(1) == 0:
        tl.store(label_out_ptr + image, tl.load(labels_ptr + chosen))
    u = tl.load(pixels_ptr + chosen * size + at, mask=at < size, other=0)
    tl.store(out_ptr + image * size + at, (2 * u.to(tl.int32) - 255).to(tl.float32), mask=at < size)


@triton.jit
def _hinge(
    scores_ptr, labels_ptr, loss_ptr, mistakes_ptr, gradient_ptr, rows, classes, scale,
    ROWS: tl.constexpr, CLASSES: tl.constexpr,
):  # fmt: skip
    loss = tl.zeros((ROWS,), tl.float32)
    mistakes = tl.zeros((ROWS,), tl.int32)
    column = tl.arange(0, CLASSES)
    for start in range(0, rows, ROWS):
        row = start + tl.arange(0, ROWS)
        inside = (row < rows)[:, None] & (column < classes)[None, :]
        place = row[:, None] * classes + column[None, :]
        label = tl.load(labels_ptr + row, mask=row < rows, other=0)
        scores = tl.load(scores_ptr + place, mask=inside, other=0)
        target = tl.where(column[None, :] == label[:, None], 1.0, -1.0)
        slack = 1 - target * scores
        slack = tl.where(inside & ~(slack < 0), slack, 0.0)  # a NaN stays one
        loss += tl.sum(slack * slack, axis=1)
        tl.store(gradient_ptr + place, -2 * scale * target * slack, mask=inside)
        found = tl.argmax(tl.where(inside, scores, float("-inf")), axis=1, tie_break_left=True)
        mistakes += tl.where((row < rows) & (found != label), 1, 0)
    tl.store(loss_ptr, tl.sum(loss, axis=0) * scale)
    tl.store(mistakes_ptr, tl.sum(mistakes, axis=0).to(tl.int64))


def fetch(
    pixels: torch.Tensor, labels: torch.Tensor, chosen: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the odd integers ``2u - 255`` of some images, float32 [B, ...], and their labels.

    Args:
        pixels: uint8 [n, ...], contiguous.
        labels: int64 [n].
        chosen: int64 [B], which images.

    Raises:
        TypeError, ValueError: another dtype, shape or device.
    """
    if pixels.dtype != torch.uint8:
        raise TypeError(f"pixels must be torch.uint8, got {pixels.dtype}")
    if pixels.device.type != DEVICE or not pixels.is_contiguous():
        raise ValueError(
            f"pixels must be contiguous on {DEVICE}, got strides {pixels.stride()} "
            f"on {pixels.device}"
        )
    check_vector("labels", labels, torch.int64, len(pixels))
    check_vector("chosen", chosen, torch.int64, chosen.numel())
    out = torch.empty((len(chosen), *pixels.shape[1:]), device=pixels.device)
    found = torch.empty(len(chosen), dtype=torch.int64, device=pixels.device)
    size = pixels[:1].numel()
    if out.numel():
        grid = (len(chosen), triton.cdiv(size, PIXELS))
        _fetch[grid](pixels, labels, chosen, out, found, size, PIXELS=PIXELS, num_warps=WARPS)
    return out, found


def hinge(
    scores: torch.Tensor, labels: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the mean square hinge loss of ``scores`` [B, C], its mistakes and its gradient.

    ``mean(max(0, 1 - t y)^2)``, t = +1 at the label, else -1 (paper, section 2.1); a mistake is an
    image whose greatest score, the first among equals, is not its label's. Summed in one order.

    Args:
        scores: float32 [B, C].
        labels: int64 [B].

    Returns:
        The loss, float32 []; the mistakes, int64 []; the loss' gradient by the scores, [B, C].

    Raises:
        TypeError, ValueError: another dtype, shape or device.
    """
    scores = check_values("scores", scores, (torch.float32,)).contiguous()
    rows, classes = scores.shape
    check_vector("labels", labels, torch.int64, rows)
    loss = torch.empty((), device=scores.device)
    mistakes = torch.empty((), dtype=torch.int64, device=scores.device)
    gradient = torch.empty_like(scores)
    _hinge[(1,)](
        scores, labels, loss, mistakes, gradient, rows, classes, 1 / max(rows * classes, 1),
        ROWS=ROWS, CLASSES=triton.next_power_of_2(classes), num_warps=WARPS,
    )  # fmt: skip
    return loss, mistakes, gradient
