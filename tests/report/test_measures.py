"""Each kind of measure on made-up frames: value, interval, source and scale."""

from pathlib import Path
from typing import Any

import pytest
from made_frames import EVALUATION, KERNEL, LAYER, RUN, made_frames, runs

from harness.report.claims import judge, judge_all
from harness.report.evidence import Evidence
from harness.report.frames import empty_frames
from harness.report.intervals import student, wilson
from harness.report.measures import gather, how
from harness.report.paper import load_paper

CLAIMS = {claim.id: claim for claim in load_paper().claims}


def best(folder: Path, claim: str, **rows: list[dict[str, Any]]) -> Evidence | None:
    found = gather(CLAIMS[claim].measure, made_frames(folder, **rows))
    return found[0] if found else None


def test_one_run_carries_wilson_several_carry_student(tmp_path: Path) -> None:
    one = best(tmp_path, "mnist-theano", runs=runs(0.96))
    assert one is not None
    assert (one.low, one.high) == wilson(96, 10_000)
    assert "10,000 test images" in one.sure
    three = best(tmp_path, "mnist-theano", runs=runs(0.9, 1.0, 1.1))
    assert three is not None
    assert (three.value, three.n, three.sd) == pytest.approx((1.0, 3, 0.1))
    assert (three.low, three.high) == student([0.9, 1.0, 1.1])
    assert three.sure == "95 % t interval over 3 seeds"


@pytest.mark.parametrize(
    ("errors", "verdict"),
    [
        ([0.81], "reproduced"),
        ([1.11], "reproduced"),
        ([1.2], "partly"),  # Wilson from 1.01
        ([1.4], "not reproduced"),  # Wilson from 1.19
        ([0.7], "partly"),  # Wilson up to 0.88
        ([0.5], "better"),  # Wilson up to 0.66
        ([1.3, 1.301, 1.299], "not reproduced"),
        ([1.0, 1.6], "partly"),  # 1.3, but two seeds say little
        ([0.5, 0.501, 0.499], "better"),
    ],
)
def test_an_error_from_frame_to_verdict(tmp_path: Path, errors: list[float], verdict: str) -> None:
    assert judge(CLAIMS["mnist-theano"], made_frames(tmp_path, runs=runs(*errors))).verdict == (
        verdict
    )


def test_official_and_full_results_come_first_and_labels_do_not_count(tmp_path: Path) -> None:
    rows = [
        *runs(0.1, source="standin"),
        *runs(2.0, changes="epochs=5", epochs=5),
        *runs(0.2, label="no-clip", changes="optimizer.clip=False"),
    ]
    found = best(tmp_path, "mnist-theano", runs=rows)
    assert found is not None
    assert (found.value, found.reduced) == (2.0, "MLP 3 × 4096, 5 epochs")
    full = best(tmp_path, "mnist-theano", runs=rows + runs(1.0))
    assert full is not None
    assert (full.value, full.reduced) == (1.0, "")


def test_rounded_gradients_are_no_smaller_scale_and_are_named(tmp_path: Path) -> None:
    fast = runs(0.98, changes="precision=fast")
    judged = judge(CLAIMS["mnist-theano"], made_frames(tmp_path, runs=fast))
    assert (judged.verdict, judged.ours) == ("reproduced", 0.98)
    assert "precision=fast: products of reals are rounded" in judged.note
    short = best(tmp_path, "mnist-theano", runs=runs(1.0, changes="epochs=5; precision=fast"))
    assert short is not None
    assert short.reduced == "MLP 3 × 4096, 1000 epochs"
    sizes = {"bytes_packed": 100, "bytes_float32": 3180}
    files = best(tmp_path, "packed-files", runs=[row | sizes for row in fast])
    assert files is not None
    assert (files.value, files.reduced) == (31.8, "")


def test_gaps_are_paired_by_seed(tmp_path: Path) -> None:
    rows = runs(12.0, 13.0, 14.0, dataset="cifar10") + runs(
        11.0, 11.5, dataset="cifar10", mode="float"
    )
    found = best(tmp_path, "nearly-as-accurate", runs=rows)
    assert found is not None
    assert (found.value, found.n) == (1.25, 2)
    assert (found.low, found.high) == student([1.0, 1.5])
    one = best(tmp_path, "nearly-as-accurate", runs=[rows[0], rows[3]])
    assert one is not None
    assert one.low < 1.0 < one.high
    assert "Newcombe" in one.sure


@pytest.mark.parametrize(("slower", "verdict"), [(1.0, "reproduced"), (-1.0, "not reproduced")])
def test_curves_compare_the_mean_over_epochs(tmp_path: Path, slower: float, verdict: str) -> None:
    both = [run for mode in ("bnn-det", "float") for run in runs(9.0, dataset="cifar10", mode=mode)]
    epochs = [
        {**RUN, "dataset": "cifar10", "mode": mode, "epoch": e, "valid_error_pct": 20.0 / e + extra}
        for mode, extra in (("bnn-det", slower), ("float", 0.0))
        for e in (1, 2, 3)
    ]
    judged = judge(CLAIMS["trains-slower"], made_frames(tmp_path, runs=both, epochs=epochs))
    assert (judged.ours, judged.verdict) == (pytest.approx(slower), verdict)


@pytest.mark.parametrize(("speed", "verdict"), [(900.0, "reproduced"), (1100.0, "not reproduced")])
def test_times_compare_runs_of_one_machine_and_thread_count(
    tmp_path: Path, speed: float, verdict: str
) -> None:
    rows = runs(1.0) + runs(1.0, mode="bnn-stoch", images_per_s=speed)
    judged = judge(CLAIMS["stochastic-costs"], made_frames(tmp_path, runs=rows))
    assert (judged.ours, judged.verdict) == (pytest.approx(1000 / speed), verdict)
    elsewhere = [rows[0], {**rows[1], "machine": "other"}]
    assert best(tmp_path, "stochastic-costs", runs=elsewhere) is None


SBN = "network.norm.eps=1e-05; network.norm.kind=shift; network.norm.momentum=0.125"


@pytest.mark.parametrize(
    ("extra", "verdict"), [(0.15, "reproduced"), (0.16, "not reproduced"), (-0.3, "reproduced")]
)
def test_a_setting_is_compared_between_runs_that_differ_in_nothing_else(
    tmp_path: Path, extra: float, verdict: str
) -> None:
    rows = [
        *runs(1.0),
        *runs(round(1.0 + extra, 9), label="sbn", changes=SBN),
        *runs(9.0, label="sbn-short", changes=f"epochs=2; {SBN}"),  # without a twin
        *runs(9.0, mode="float"),
    ]
    judged = judge(CLAIMS["shift-batch-norm"], made_frames(tmp_path, runs=rows))
    assert (judged.ours, judged.n, judged.verdict) == (pytest.approx(extra), 1, verdict)


def test_reduced_pairs_of_settings_say_partly_and_name_the_scale(tmp_path: Path) -> None:
    small = "epochs=20; network.hidden=[256]"
    rows = [
        *runs(2.0, 2.1, 2.2, changes=small, network="MLP 1 × 256", epochs=20),
        *runs(2.3, 2.4, 2.5, label="no-clip", changes=f"{small}; optimizer.clip=False",
              network="MLP 1 × 256", epochs=20),
    ]  # fmt: skip
    found = {c.id: c for c in judge_all(load_paper(), made_frames(tmp_path, runs=rows))}
    assert found["mnist-theano"].ours == pytest.approx(2.1), "labelled runs stay out of the others"
    judged = found["clip-matters"]
    assert (judged.verdict, judged.ours, judged.n) == ("partly", pytest.approx(0.3), 3)
    assert "MLP 1 × 256, 20 epochs" in judged.reason


def test_the_optimizers_own_constants_go_with_it_but_not_the_clip(tmp_path: Path) -> None:
    adamax = "optimizer.beta1=0.875; optimizer.kind=shift-adamax"
    rows = [
        *runs(1.0),
        *runs(1.1, label="adamax", changes=adamax),
        *runs(7.0, label="both", changes=f"optimizer.clip=False; {adamax}"),
    ]
    found = best(tmp_path, "shift-adamax", runs=rows)
    assert found is not None
    assert (found.value, found.n) == (pytest.approx(0.1), 1)


@pytest.mark.parametrize(("agree", "verdict"), [(10000, "reproduced"), (9999, "not reproduced")])
@pytest.mark.parametrize("claim", ["kernel-independent", "first-layer-exact"])
def test_one_differing_prediction_is_a_bug(
    tmp_path: Path, claim: str, agree: int, verdict: str
) -> None:
    rows = [{**EVALUATION, "first_layer": "bitplanes", "agree": agree}, EVALUATION]
    assert judge(CLAIMS[claim], made_frames(tmp_path, evaluations=rows)).verdict == verdict


def test_the_first_layers_claim_looks_at_bit_planes_alone(tmp_path: Path) -> None:
    rows = [{**EVALUATION, "agree": 1}, {**EVALUATION, "first_layer": "bitplanes"}]
    found = best(tmp_path, "first-layer-exact", evaluations=rows)
    assert found is not None
    assert found.value == 100
    assert best(tmp_path, "first-layer-exact", evaluations=[EVALUATION]) is None


def test_one_kernel_says_nothing_of_others(tmp_path: Path) -> None:
    rows = [EVALUATION, {**EVALUATION, "first_layer": "bitplanes"}]
    assert best(tmp_path, "kernel-error", evaluations=rows) is None
    rows += [{**EVALUATION, "device": "cuda"}]
    assert best(tmp_path, "kernel-error", evaluations=rows) is not None


@pytest.mark.parametrize(("other", "verdict"), [(1.0, "reproduced"), (1.01, "not reproduced")])
def test_kernels_have_one_error(tmp_path: Path, other: float, verdict: str) -> None:
    rows = [EVALUATION, {**EVALUATION, "kernel": "xnor-cpu", "test_error_pct": other}]
    assert judge(CLAIMS["kernel-error"], made_frames(tmp_path, evaluations=rows)).verdict == verdict


@pytest.mark.parametrize(
    ("ratio", "verdict"),
    [(18.3, "not reproduced"), (18.4, "reproduced"), (27.6, "reproduced"), (27.7, "better")],
)
def test_ratios_of_kernels(tmp_path: Path, ratio: float, verdict: str) -> None:
    rows = [
        {**KERNEL, "kernel": "naive", "baseline": True, "median_ms": ratio * 10},
        {**KERNEL, "kernel": "xnor-triton", "baseline": False, "median_ms": 10.0},
    ]
    judged = judge(CLAIMS["product-over-baseline"], made_frames(tmp_path, kernels=rows))
    assert judged.verdict == verdict


def test_the_papers_own_size_goes_before_a_larger_one(tmp_path: Path) -> None:
    larger = {"case": "square-16384", "m": 16384, "n": 16384, "k": 16384}
    rows = [
        {**KERNEL, **size, "kernel": name, "baseline": name == "naive", "median_ms": ms}
        for size, naive in (({}, 230.0), (larger, 900.0))
        for name, ms in (("naive", naive), ("xnor-triton", 10.0))
    ]
    judged = judge(CLAIMS["product-over-baseline"], made_frames(tmp_path, kernels=rows))
    assert judged.ours == pytest.approx(23)


def convolutions(*alike: int, **facts: Any) -> list[dict[str, Any]]:
    return [
        {**LAYER, **facts, "layer": i + 1, "per_input_up_to_sign": n} for i, n in enumerate(alike)
    ]


@pytest.mark.parametrize(
    ("alike", "verdict"),
    [((47, 47), "reproduced"), ((48, 47), "not reproduced"), ((37, 37), "reproduced"),
     ((36, 37), "better")],
)  # fmt: skip
def test_unique_filters_are_a_mean_over_layers(
    tmp_path: Path, alike: tuple[int, ...], verdict: str
) -> None:
    rows = made_frames(tmp_path, runs=runs(11.0, dataset="cifar10"), layers=convolutions(*alike))
    judged = judge(CLAIMS["unique-filters"], rows)
    assert (judged.ours, judged.verdict) == (pytest.approx(sum(alike) / len(alike)), verdict)
    assert "of a layer's filters 80.0 % differ (60.0 % up to sign)" in judged.note


def test_reuse_weighs_layers_by_their_operations(tmp_path: Path) -> None:
    layers = convolutions(50, 50, 10)  # the third layer has a quarter of the positions
    found = best(tmp_path, "xnor-reuse", runs=runs(11.0, dataset="cifar10"), layers=layers)
    assert found is not None
    assert found.value == pytest.approx(2.25 / (0.5 + 0.5 + 0.25 * 0.1))


@pytest.mark.parametrize(("most", "verdict"), [(512, "reproduced"), (513, "not reproduced")])
def test_no_layer_has_more_than_512_filters(tmp_path: Path, most: int, verdict: str) -> None:
    layers = [{**LAYER, "distinct": n} for n in (3, most)]
    rows = made_frames(tmp_path, runs=runs(11.0, dataset="cifar10"), layers=layers)
    assert judge(CLAIMS["at-most-512-filters"], rows).verdict == verdict


def test_the_better_bnn_stands_against_the_best_quoted(tmp_path: Path) -> None:
    rows = runs(1.2) + runs(1.0, recipe="torch7", mode="bnn-stoch")
    found = best(tmp_path, "mnist-near-best", runs=rows)
    assert found is not None
    assert (found.value, found.note) == (pytest.approx(0.06), "torch7/bnn-stoch has 1.00 %")
    assert found.high == pytest.approx(wilson(100, 10_000)[1] - 0.94)


def test_recipes_are_compared_with_the_interval_of_both(tmp_path: Path) -> None:
    rows = runs(1.3, recipe="binaryconnect", mode="bc-det") + runs(0.9)
    found = best(tmp_path, "mnist-beats-binaryconnect", runs=rows)
    assert found is not None
    assert found.value == pytest.approx(0.4)
    assert found.low < 0.4 - 0.2 < 0.4 + 0.2 < found.high
    short = runs(1.3, recipe="binaryconnect", mode="bc-det", changes="epochs=2", epochs=2)
    reduced = best(tmp_path, "mnist-beats-binaryconnect", runs=short + runs(0.9))
    assert reduced is not None
    assert reduced.reduced == "binaryconnect/bc-det: MLP 3 × 4096, 2 epochs"


@pytest.mark.parametrize(
    ("packed", "verdict"), [(4000 / 28.8, "reproduced"), (4000 / 28.7, "not reproduced")]
)
def test_packed_files(tmp_path: Path, packed: float, verdict: str) -> None:
    rows = runs(1.0, bytes_float32=4000, bytes_packed=packed)
    assert judge(CLAIMS["packed-files"], made_frames(tmp_path, runs=rows)).verdict == verdict


def test_without_any_run_only_what_is_counted_has_a_verdict() -> None:
    for judged in judge_all(load_paper(), empty_frames()):
        counted = CLAIMS[judged.id].measure["kind"] == "counted"
        assert (judged.verdict != "not measured") == counted, judged.id


def test_counts_of_the_full_networks() -> None:
    ours = {c.id: c.ours for c in judge_all(load_paper(), empty_frames())}
    assert ours["size-mnist-theano"] == 36_806_656
    # 14,022,016 weights of 32 bits and 4,618 scales and offsets, over one bit and thresholds.
    units = 2 * (128 + 256 + 512) + 2 * 1024 + 10
    bits = 14_022_016 + 32 * (units + 10)
    assert ours["weight-memory"] == pytest.approx(32 * (14_022_016 + 2 * units) / bits)
    first = 27 * 128 * 1024
    assert ours["bitwise-operations"] == pytest.approx(100 * (1 - first / 616_966_144))
    pj = 0.6 / 32
    energy = 616_966_144 * 4.6 / (first * 8 * pj + (616_966_144 - first) * pj)
    assert ours["arithmetic-energy"] == pytest.approx(energy)


def test_every_measure_is_told_in_words() -> None:
    for claim in CLAIMS.values():
        text = how(claim.measure)
        assert text
        assert "{" not in text


def mlp(width: int, baseline: float, xnor: float) -> list[dict[str, Any]]:
    row = {**KERNEL, "case": f"mnist-mlp-{width}", "group": "mlp", "m": 10000, "n": width,
           "k": width, "includes": "network"}  # fmt: skip
    return [
        {**row, "kernel": "naive", "baseline": True, "median_ms": baseline},
        {**row, "kernel": "xnor-popc", "median_ms": xnor},
    ]


def test_an_mlp_of_another_width_is_not_the_papers(tmp_path: Path) -> None:
    claim, narrow = CLAIMS["mlp-over-baseline"], mlp(64, 7.0, 1.0)
    judged = judge(claim, made_frames(tmp_path / "one", kernels=narrow))
    assert (judged.verdict, judged.ours) == ("not measured", 7)
    assert "10,000 images, 64 units on a GPU; the paper: 10,000 images, 4,096" in judged.reason
    both = judge(claim, made_frames(tmp_path / "two", kernels=narrow + mlp(4096, 21.0, 1.0)))
    assert (both.verdict, both.ours) == ("better", 21)


def test_the_same_seed_of_two_presets_is_not_two_seeds(tmp_path: Path) -> None:
    twice = [{**run, "preset": preset} for preset in ("a", "b") for run in runs(1.0, 1.1)]
    found = best(tmp_path, "mnist-theano", runs=twice)
    assert found is not None
    assert found.n == 2
    alike = [{**EVALUATION, "preset": p, "kernel": k, "test_error_pct": e}
             for p, e in (("a", 1.0), ("b", 2.0)) for k in ("naive", "xnor-cpu")]  # fmt: skip
    spread = best(tmp_path, "kernel-error", evaluations=alike)
    assert spread is not None
    assert (spread.value, spread.n) == (0, 2)


def test_layers_without_their_run_say_nothing(tmp_path: Path) -> None:
    assert best(tmp_path, "unique-filters", layers=convolutions(40)) is None
