"""The GPU kernels as they are compiled to be counted: tiles, types and what is aligned."""

from dataclasses import dataclass, field, replace
from typing import Any

from kernels.triton import (
    batch,
    binary_maps,
    conv,
    dot,
    drop,
    maps,
    naive,
    norm,
    norm_backward,
    norm_evaluate,
    outer,
    pack,
    peaks,
    pixel_maps,
    rules,
    tma,
    update,
    update_product,
)  # fmt: skip


@dataclass(frozen=True)
class Build:
    """A kernel at one tile.

    Attributes:
        name: kernel, tile and output.
        function: the jit function.
        pointers: types of pointers and floats; what is left out is int32.
        constants: its constexpr arguments.
        warps: of a program.
        stages: steps in flight.
        words: words times outputs of a thread in a step of the loop (0: not counted by words).
        one_bit: compiled with the rewrite to single bits.
        fusion: a product and a sum may become one rounded operation.
        aligned: sizes that are multiples of 16, beside strides and pointers.
    """

    name: str
    function: Any
    pointers: dict[str, str]
    constants: dict[str, Any]
    warps: int = 4
    stages: int = 3
    words: int = 0
    one_bit: bool = field(default=False)
    fusion: bool = True
    aligned: tuple[str, ...] = ()


def outer_build(form: str, tile: outer.Tile, packed: bool) -> Build:
    """Return a build of ``outer``."""
    pointers = dict.fromkeys(("a_ptr", "b_ptr", "out_ptr"), "*i32")
    constants = {"FORM": form, "PACKED": packed, "NATIVE": True, "M": tile.m, "N": tile.n}
    words = tile.m * tile.n // (32 * tile.warps) * tile.unroll
    return Build(
        f"{form} {tile.m}x{tile.n} {'bits' if packed else 'int32'}",
        outer._product,
        pointers,
        constants | {"GROUPS": tile.groups, "UNROLL": tile.unroll},
        tile.warps,
        words=words,
    )


def dot_build(way: str, tile: dot.Tile, packed: bool) -> Build:
    """Return a build of ``dot``: ``bits`` as ``xnor-tensor`` runs it, or ``int8``."""
    one_bit = way == "bits"
    carrier = "*fp8e4nv" if one_bit else "*i8"
    scales = {"SCALE": 4, "ROW_SCALE": -2, "COL": True} if one_bit else {"SCALE": 1, "ROW_SCALE": 0}
    constants = {"COL": False, "WAY": way, "PACKED": packed, "GROUP": dot.GROUP, **scales}
    return Build(
        f"{way} {tile.m}x{tile.n}x{tile.bytes} {'bits' if packed else 'int32'}",
        dot._product,
        {"a_ptr": carrier, "b_ptr": carrier, "out_ptr": "*i32"},
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=one_bit,
    )


def tma_build(tile: dot.Tile, packed: bool) -> Build:
    """Return a build of ``tma``."""
    kind = "tensordesc<fp8e4nv[{}, {}]>"
    pointers = {
        "a_desc": kind.format(tile.m, tile.bytes),
        "b_desc": kind.format(tile.n, tile.bytes),
    }
    constants = {"WAY": "bits", "SCALE": 4, "ROW_SCALE": -2, "PACKED": packed, "GROUP": dot.GROUP}
    return Build(
        f"tma {tile.m}x{tile.n}x{tile.bytes} {'bits' if packed else 'int32'}",
        tma._product,
        pointers | {"out_ptr": "*i32"},
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=True,
    )


def conv_build(tile: dot.Tile, pool: bool) -> Build:
    """Return a build of the convolution of 128 channels to pooled bits, or to int32."""
    pointers = {"map_ptr": "*fp8e4nv", "filter_ptr": "*fp8e4nv", "out_ptr": "*i32"}
    constants = {"WAY": "bits", "POOL": pool, "PACKED": pool, "CHANNEL_BYTES": 16, "COUNT": 0}
    return Build(
        f"conv {tile.m}x{tile.n}x{tile.bytes} {'pooled' if pool else 'int32'}",
        conv._conv,
        pointers | {"ones_ptr": "*i32", "table_ptr": "*i32"},
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=True,
    )


def training_conv_build(channels: int, pool: bool) -> Build:
    """Return a build of a training step's convolution by single bits, to float32 dots."""
    tile = conv.TILE
    pointers = {"map_ptr": "*fp8e4nv", "filter_ptr": "*fp8e4nv", "out_ptr": "*fp32"}
    pointers |= {"ones_ptr": "*i32", "table_ptr": "*i32", "winner_ptr": "*u8"}
    constants: dict[str, Any] = {"WAY": "bits", "POOL": pool, "PACKED": False}
    constants |= {"CHANNEL_BYTES": channels // 8, "COUNT": channels // 32}
    constants |= {"threshold_ptr": None, "flip_ptr": None} | ({} if pool else {"winner_ptr": None})
    return Build(
        f"conv {tile.m}x{tile.n}x{tile.bytes} {'greatest' if pool else 'dots'} of {channels}",
        conv._conv,
        pointers,
        constants | {"M": tile.m, "N": tile.n, "BYTES": tile.bytes},
        tile.warps,
        tile.stages,
        one_bit=True,
        aligned=("n", "row_bytes", "out_row"),
    )


def filters_build() -> Build:
    """Return a build of the packing of 512 channels' filters."""
    types = {"signs_ptr": "*fp16", "words_ptr": "*i32", "table_ptr": "*i32"}
    sizes = {"C": 512, "WORDS": 16, "ROWS": binary_maps.FILTER_ROWS}
    name, kernel = "filters of 512", binary_maps._filters
    return Build(name, kernel, types, sizes, binary_maps.WARPS, aligned=("n", "row_words"))


def map_builds() -> list[Build]:
    """Return the convolutions of a training step, pooled too, and the filters' gradient."""
    found = []
    for name, tile in (
        ("dots", maps.NARROW[0][0]),
        ("pooled", maps.NARROW[0][0]),
        ("pooled", maps.WIDE[0][0]),
        ("pooled", maps.WIDE[1][0]),
        ("pooled", maps.SMALL),
    ):
        pool = name == "pooled"
        types = {"map_ptr": "*fp16", "filter_ptr": "*fp16", "winner_ptr": "*u8", "out_ptr": "*fp32"}
        sizes: dict[str, Any] = {"M": tile.m, "N": tile.n, "K": tile.k, "C": max(64, tile.k)}
        sizes |= {"POOL": pool} | ({} if pool else {"winner_ptr": None})
        name = f"maps {name} {tile.m}x{tile.n}x{tile.k}"
        more = (tile.warps, tile.stages)
        found.append(Build(name, maps._conv, types, sizes, *more, aligned=("n",)))
    tile = maps.FILTER_TILE
    types = {"gradient_ptr": "*fp16", "map_ptr": "*fp16", "out_ptr": "*fp32", "unscale": "fp32"}
    sizes = {"N": tile.m, "K": tile.n, "P": tile.k, "C": 64}
    more = (tile.warps, tile.stages)
    build = Build("maps by filters", maps._by_filters, types, sizes, *more)
    return [*found, replace(build, aligned=("n", "piece"))]


def pixel_builds() -> list[Build]:
    """Return the convolution of a training step's pixels, and its filters' gradient."""
    found, aligned = [], ("n", "area", "piece")
    sizes: dict[str, Any] = {"C": 3, "N": pixel_maps.MAPS, "K": pixel_maps.columns_of(3)}
    types = {"x_ptr": "*fp32", "filter_ptr": "*fp16", "out_ptr": "*fp32"}
    for integers in (True, False):
        name = f"pixel-maps {'integers' if integers else 'reals'}"
        constants = sizes | {"INTEGERS": integers, "M": pixel_maps.POSITIONS}
        build = Build(name, pixel_maps._conv, types, constants, pixel_maps.WARPS)
        found.append(replace(build, aligned=aligned))
    types = {"gradient_ptr": "*fp16", "x_ptr": "*fp32", "out_ptr": "*fp32", "unscale": "fp32"}
    constants, more = sizes | {"P": pixel_maps.STEP}, (pixel_maps.STEP_WARPS, pixel_maps.STAGES)
    build = Build("pixel-maps by filters", pixel_maps._by_filters, types, constants, *more)
    return [*found, replace(build, aligned=aligned)]


def pack_build() -> Build:
    """Return a build of packing float32 rows that lie in order, with popcounts."""
    pointers = {"x_ptr": "*fp32", "words_ptr": "*i32", "ones_ptr": "*i32"}
    constants = {"MODE": "sign", "COUNT": True, "ROWS": pack.ROWS, "WORDS": pack.WORDS}
    return Build(
        "pack float32", pack._pack, pointers, constants | {"x_col": 1, "words_col": 1}, pack.WARPS
    )


_STEP = {"signs_ptr": "*bf16", "at_ptr": "*i64"} | dict.fromkeys(
    ("parameter_ptr", "gradient_ptr", "m_ptr", "v_ptr", "plan_ptr"), "*fp32"
)
_NUMBERS = dict.fromkeys(rules.Rule._fields[1:], "fp32")


def update_build(rule: str) -> Build:
    """Return a build of a step of the optimizer over memory, with the signs."""
    constants = {"RULE": rule, "SIGNS": True, "BLOCK": update.BLOCK}
    types = _STEP | _NUMBERS
    return Build(
        f"update {rule}", update._update, types, constants, update.WARPS, aligned=("size",)
    )


def product_update_build(rule: str) -> Build:
    """Return a build of the same with the gradient's product, rows in two pieces as a step has."""
    tile = update_product.TILE
    constants = {"RULE": rule, "SIGNS": True, "PIECES": 2, "FLOAT32": False}
    return Build(
        f"product-update {rule}",
        update_product._product_update,
        _STEP | _NUMBERS | {"rows_ptr": "*bf16", "columns_ptr": "*bf16"},
        constants | {"N": tile.n, "K": tile.k, "B": tile.b},
        tile.warps,
        tile.stages,
        aligned=("n", "k"),
    )


def sign_build() -> Build:
    """Return a build of the signs of float32 in bfloat16."""
    types = {"x_ptr": "*fp32", "out_ptr": "*bf16"}
    constants = {"BLOCK": update.BLOCK, "DRAWS": False, "draws_ptr": None}
    return Build("sign", update._sign, types, constants, update.WARPS, aligned=("size",))


def naive_build(xnor: bool) -> Build:
    """Return a build of ``naive`` or ``naive-xnor``."""
    kind = "*i32" if xnor else "*fp32"
    constants = {"XNOR": xnor, "BITS": False, "TILE": naive.TILE}
    pointers = dict.fromkeys(("a_ptr", "b_ptr", "out_ptr"), kind)
    name = "naive-xnor" if xnor else "naive"
    return Build(f"{name} 16x16", naive._naive, pointers, constants, naive.WARPS, words=1)


def norm_builds() -> list[Build]:
    """Return batch norm and sign, forward and backward, in one launch and in several."""
    forward = {"FORM": "stochastic", "SHIFT": False, "WORDS": False}
    backward, shifted = {"GATE": "near", "SHIFT": False}, {"SHIFT": True}
    pieces: dict[str, Any] = {"PIECES": norm_backward.MOST_PIECES, "NATIVE": True}
    pieces |= {"HALF": False, "POOLED": False, "winner_ptr": None}
    windows = {"PIECES": 0, "HALF": True, "POOLED": True, "NATIVE": True}
    merged = {"BLOCKS": norm.MOST_BLOCKS}
    found = []
    for name, function, constants in (
        ("norm strip", norm._strip, forward),
        ("norm statistics", norm._statistics, {}),
        ("norm signs", norm._normalise, forward | merged | {"WORDS": True}),
        ("norm-shift strip", norm._strip, forward | shifted),
        ("norm-shift squares", norm._shift_squares, merged),
        ("norm-shift signs", norm._normalise, forward | shifted | merged),
        ("norm-backward strip", norm_backward._strip, backward | pieces),
        ("norm-backward sums", norm_backward._sums, backward),
        ("norm-backward gradient", norm_backward._gradient, backward | pieces | merged),
        ("norm-shift-backward strip", norm_backward._strip, backward | shifted | pieces),
        ("norm-shift-backward sums", norm_backward._sums, backward | shifted),
        (
            "norm-shift-backward windows",
            norm_backward._gradient,
            backward | shifted | windows | merged,
        ),
        ("norm-backward windows", norm_backward._gradient, backward | windows | merged),
        ("norm-evaluate words", norm_evaluate._signs, {"WORDS": True}),
    ):
        tile = norm.BLOCK
        if name.endswith("strip"):
            tile = norm.Tile(norm.STRIP_ROWS, norm.STRIP_COLS, norm.STRIP_WARPS)
        types = {name: "*fp32" for name in function.arg_names if name.endswith("_ptr")}
        types |= {"d_dots_ptr": "*bf16", "out_ptr": "*bf16", "scale": "fp32", "eps": "fp32"}
        types["words_ptr"] = "*i16" if name.endswith("strip") else "*i32"
        if function is norm_evaluate._signs:
            types["out_ptr"] = "*i32"
        if constants.get("HALF"):
            types |= {"d_dots_ptr": "*fp16", "gradient_ptr": "*fp16", "winner_ptr": "*u8"}
        rows = norm_backward.WINDOWS if name.endswith("windows") else tile.rows
        constants = constants | {"ROWS": rows, "COLS": tile.cols}
        more: dict[str, Any] = {"fusion": False, "aligned": ("c", "size")}
        found.append(Build(name, function, types, constants, tile.warps, **more))
    return found


def peak_builds() -> list[Build]:
    """Return builds of what measures the units' rates."""
    tile = peaks.TILE
    carriers = {"a_ptr": "*fp8e4nv", "b_ptr": "*fp8e4nv", "out_ptr": "*i32"}
    constants = {"WAY": "bits", "M": tile.m, "N": tile.n, "BYTES": tile.bytes}
    found = [
        Build(
            f"peak bits {tile.m}x{tile.n}x{tile.bytes}",
            peaks._bits,
            carriers,
            constants | {"UNROLL": peaks.UNROLL},
            tile.warps,
            tile.stages,
            one_bit=True,
        )
    ]
    pointers = dict.fromkeys(("x_ptr", "y_ptr", "out_ptr"), "*i32")
    each = peaks.LANES // (32 * peaks.WARPS) * peaks.STEPS
    for form in peaks.FORMS:
        sizes = {"FORM": form, "NATIVE": True, "LANES": peaks.LANES, "STEPS": peaks.STEPS}
        name = f"peak {form} {peaks.LANES}"
        found.append(Build(name, peaks._words, pointers, sizes, peaks.WARPS, words=each))
    return found


def batch_builds() -> list[Build]:
    """Return the small launches of a training step: images, dropout there and back, loss."""
    reals = {"draws_ptr": "*fp32", "keep": "fp32"}
    drops = {"DROPS": True, "BLOCK": drop.BLOCK}
    columns, whole = {"x_ptr": "*fp32", "out_ptr": "*bf16"}, {"PIECES": drop.MOST_PIECES}
    more: dict[str, Any] = {"aligned": ("size",)}
    made = (
        ("drop", drop._drop, columns, {"PIECES": 1, "NATIVE": True}),
        ("drop pieces", drop._drop, columns, whole | {"NATIVE": True}),
        ("join", drop._join, {"pieces_ptr": "*fp32", "out_ptr": "*fp32"}, whole),
    )
    found = [
        Build(name, function, types | reals, drops | constants, drop.WARPS, **more)
        for name, function, types, constants in made
    ]
    types = {"pixels_ptr": "*u8", "out_ptr": "*fp32"}
    types |= dict.fromkeys(("labels_ptr", "chosen_ptr", "label_out_ptr"), "*i64")
    sizes = {"PIXELS": batch.PIXELS}
    found.append(Build("fetch", batch._fetch, types, sizes, batch.WARPS, **more))
    types = dict.fromkeys(("scores_ptr", "loss_ptr", "gradient_ptr"), "*fp32")
    types |= dict.fromkeys(("labels_ptr", "mistakes_ptr"), "*i64") | {"scale": "fp32"}
    sizes = {"ROWS": batch.ROWS, "CLASSES": 16}
    return [*found, Build("hinge", batch._hinge, types, sizes, batch.WARPS)]


def builds() -> list[Build]:
    """Return every kernel at its largest tile, and the 1-bit product to bits at every tile."""
    found = [pack_build(), naive_build(False), naive_build(True), sign_build()]
    found += [make(rule) for make in (update_build, product_update_build) for rule in rules.RATES]
    for packed in (False, True):
        found += [outer_build(form, tiles[0], packed) for form, tiles in outer.TILES.items()]
        found += [dot_build("bits", tile, packed) for tile in dot.TILES if packed or tile.n > 128]
    for packed in (False, True):
        found += [tma_build(dot.TILES[0], packed), conv_build(conv.TILE, packed)]
    found += [training_conv_build(128, True), training_conv_build(512, False), filters_build()]
    found += [*norm_builds(), *map_builds(), *pixel_builds(), *batch_builds(), *peak_builds()]
    return [*found, dot_build("int8", dot.TILES[1], False)]
