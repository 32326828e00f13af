"""The order of operations on several streams, and which memory a kernel of Triton touches."""

import pytest
import torch

from tests.kernels.happens_before import Order, Span, span

pytest.importorskip("triton", reason="triton is not installed: pip install --group gpu")

from tests.kernels.watched_driver import roles

X, Y = Span(1, 0, 4), Span(1, 4, 8)
OTHER = Span(2, 0, 4)


def order() -> Order:
    return Order([])


@pytest.mark.parametrize(
    ("first", "second", "races"),
    [
        (([], [X]), ([], [X]), True),
        (([], [X]), ([X], []), True),
        (([X], []), ([], [Span(1, 3, 5)]), True),
        (([X], []), ([X], []), False),
        (([], [X]), ([], [Y]), False),
        (([], [X]), ([], [OTHER]), False),
    ],
)
def test_streams_race_for_a_byte_that_one_writes(
    first: tuple[list[Span], list[Span]], second: tuple[list[Span], list[Span]], races: bool
) -> None:
    found = order()
    found.operation(0, "one", *first)
    found.operation(0, "two", *first)
    assert not found.faults, "of one stream"
    found.operation(1, "three", *second)
    assert bool(found.faults) == races


def test_a_wait_orders_what_came_before_it_alone() -> None:
    found = order()
    found.operation(0, "one", [], [X])
    found.wait(1, 0)
    found.wait(2, 1)
    found.operation(2, "two", [X], [])
    assert not found.faults
    found.operation(0, "three", [], [Y])
    found.operation(2, "four", [Y], [])
    assert found.faults == [
        "four on stream 2 reads what three on stream 0 writes, without a wait between"
    ]
    assert found.is_behind(1, 2) is False
    assert found.is_behind(2, 1) is True


def test_the_hosts_wait_orders_what_it_gives_out_afterwards() -> None:
    found = order()
    found.operation(0, "one", [], [X])
    found.host_waits(0)
    found.operation(1, "two", [X], [])
    assert not found.faults


def test_memory_is_freed_behind_all_that_use_it() -> None:
    found = order()
    found.operation(0, "one", [], [X])
    found.operation(0, "two", [], [OTHER])
    found.wait(1, 0)
    found.operation(1, "three", [X], [])
    found.freed(OTHER.storage, 0)
    assert not found.faults
    found.freed(X.storage, 0)
    assert len(found.faults) == 1
    assert not found.uses(X.storage)


def test_a_tensors_bytes_reach_from_its_first_element_to_its_last() -> None:
    x = torch.zeros(4, 5)
    storage = x.untyped_storage()._cdata
    assert span(x) == Span(storage, 0, 80)
    assert span(x[1:3, 2]) == Span(storage, 28, 52)
    assert span(x.t()) == Span(storage, 0, 80)
    assert span(x[:0]) is None


def ir(*lines: str) -> str:
    head = "  tt.func public @f(%a_ptr: !tt.ptr<f32>, %b_ptr: !tt.ptr<f32>, %n: i32) {"
    return "\n".join(["module {", head, *lines, "}"])


def test_loads_and_stores_are_traced_to_the_arguments() -> None:
    found = roles(
        ir(
            "%0 = tt.addptr %a_ptr, %n : !tt.ptr<f32>, i32",
            "%1 = tt.splat %0 : !tt.ptr<f32> -> tensor<8x!tt.ptr<f32>> loc(#loc)",
            "%2 = tt.load %1, %m : tensor<8x!tt.ptr<f32>>",
            "tt.store %b_ptr, %2 : !tt.ptr<f32>",
        )
    )
    assert found == ({"a_ptr"}, {"b_ptr"})
    both = roles(
        ir("%0 = tt.atomic_rmw fadd, acq_rel, gpu, %b_ptr, %1, %2 : (!tt.ptr<f32>) -> f32")
    )
    assert both == ({"b_ptr"}, {"b_ptr"})


LOOP = (
    "%0:2 = scf.for %i = %c0 to %n step %c8 iter_args(%at = %a_ptr, %sum = %c) "
    "-> (!tt.ptr<f32>, f32) : i32 {"
)


def test_a_pointer_that_a_loop_moves_on_stays_its_arguments() -> None:
    load = "%1 = tt.load %at : !tt.ptr<f32>"
    on = "%2 = tt.addptr %at, %c8 : !tt.ptr<f32>, i32"
    assert roles(ir(LOOP, load, on, "scf.yield %2, %1 : !tt.ptr<f32>, f32", "}")) == (
        {"a_ptr"},
        set(),
    )
    with pytest.raises(ValueError, match="a pointer becomes another's: scf.yield %b_ptr"):
        roles(ir(LOOP, load, "scf.yield %b_ptr, %1 : !tt.ptr<f32>, f32", "}"))


@pytest.mark.parametrize(
    "line",
    ["%0 = tt.load %lost : !tt.ptr<f32>", "%0 = scf.if %c -> (!tt.ptr<f32>) {"],
)
def test_a_pointer_that_is_lost_sight_of_is_an_error(line: str) -> None:
    with pytest.raises(ValueError, match="from nowhere|goes through scf.if"):
        roles(ir(line))
