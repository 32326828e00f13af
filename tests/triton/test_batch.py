"""Images out of their store and the loss of their scores, against torch."""

import pytest
import torch
import torch.nn.functional as F

from kernels.triton.batch import fetch, hinge
from tests.triton.operands import on_device

# float32 sums of up to 2,500 squares in another order.
TOLERANCE = 1e-6


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (5,)], ids=str)
def test_images_come_as_odd_integers_with_their_labels(shape: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (9, *shape), dtype=torch.uint8, generator=generator)
    pixels[3], pixels[8] = 0, 255
    labels = torch.randint(0, 10, (9,), generator=generator)
    for chosen in ([8, 0, 3, 3], [5], []):
        rows = torch.tensor(chosen, dtype=torch.long)
        found, named = fetch(*map(on_device, (pixels, labels, rows)))
        assert torch.equal(found.cpu(), 2 * pixels[rows].float() - 255)
        assert torch.equal(named.cpu(), labels[rows])


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("rows", [1, 20, 32, 50, 100, 250])
@pytest.mark.parametrize("classes", [2, 10, 16])
def test_the_loss_its_mistakes_and_its_gradient(rows: int, classes: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    scores = torch.randn(rows, classes, generator=generator).mul_(2).round_(decimals=0)
    scores.requires_grad_()
    labels = torch.randint(0, classes, (rows,), generator=generator)
    targets = 2 * F.one_hot(labels, classes) - 1
    expected = (1 - targets * scores).clamp(min=0).square().mean()
    expected.backward()
    loss, mistakes, gradient = hinge(on_device(scores.detach()), on_device(labels))
    assert loss.item() == pytest.approx(expected.item(), rel=TOLERANCE)
    first = [int((row == row.max()).nonzero()[0]) for row in scores.detach()]  # among equals
    assert mistakes.item() == (torch.tensor(first) != labels).sum()
    torch.testing.assert_close(gradient.cpu(), scores.grad, rtol=TOLERANCE, atol=0)


def test_a_score_that_is_no_number_makes_the_loss_none() -> None:
    scores = torch.zeros(3, 10)
    scores[1, 2] = torch.nan
    loss, _, gradient = hinge(on_device(scores), on_device(torch.zeros(3, dtype=torch.long)))
    assert loss.isnan()
    assert gradient.isnan().sum() == 1


def test_operands_that_do_not_fit_are_named() -> None:
    rows = on_device(torch.zeros(2, dtype=torch.long))
    with pytest.raises(TypeError, match=r"pixels must be torch.uint8, got torch.float32"):
        fetch(on_device(torch.zeros(2, 4)), rows, rows)
    with pytest.raises(TypeError, match=r"chosen must be a torch.int64 tensor, got torch.int32"):
        fetch(on_device(torch.zeros(2, 4, dtype=torch.uint8)), rows, rows.int())
    with pytest.raises(ValueError, match=r"labels must have shape \[3\]"):
        fetch(on_device(torch.zeros(3, 4, dtype=torch.uint8)), rows, rows)
    with pytest.raises(ValueError, match=r"labels must have shape \[3\]"):
        hinge(on_device(torch.zeros(3, 10)), rows)
    with pytest.raises(TypeError, match="scores must be a tensor of torch.float32"):
        hinge(on_device(torch.zeros(2, 10).double()), rows)
