"""What this machine is, and which kernels run on it."""

from rich.console import Console
from rich.table import Table

from harness.provenance import provenance
from kernels import registry
from kernels.base import Kernel
from kernels.cpu.threads import available_threads
from kernels.packing import pack_rows, unpack_rows


def try_kernel(kernel: Kernel) -> str | None:
    """Return why ``kernel`` does not run here, or None: it multiplies a small matrix to find out.

    Whatever the kernel raises is its reason.
    """
    import torch

    from kernels import reference

    reason = kernel.why_not()
    if reason is not None:
        return reason
    generator = torch.Generator().manual_seed(0)
    p = pack_rows(torch.randn(32, 128, generator=generator))
    try:
        here = p.to(kernel.device)
        dots = kernel.product(kernel.activations(here), kernel.weights(here))
    except Exception as error:  # a diagnosis: every failure is an answer
        return f"{type(error).__name__}: {error}"
    signs = unpack_rows(p)
    right = torch.equal(dots.to("cpu", torch.int32), reference.gemm(signs, signs))
    return None if right else "gives a wrong product of 32 x 32 x 128"


def show() -> None:
    """Print both tables."""
    import numba
    import torch

    found = provenance()
    machine = found["machine"]
    facts = Table(title="this machine", show_header=False)
    facts.add_row("name", machine["name"])
    facts.add_row("processor", f"{machine['cpu']}, {available_threads()} usable cores")
    facts.add_row("instructions", ", ".join(machine["flags"]) or "none of those that matter")
    facts.add_row("memory", f"{machine['memory_gb']} GiB")
    facts.add_row("GPU", machine["gpu"] or "none")
    facts.add_row("system", machine["os"])
    facts.add_row("threads", f"torch {torch.get_num_threads()}, numba {numba.get_num_threads()}")
    facts.add_row("versions", ", ".join(f"{k} {v}" for k, v in found["versions"].items()))
    dirty = {True: " with changes", False: "", None: ""}[found["dirty"]]
    facts.add_row("commit", f"{found['commit'] or 'no checkout'}{dirty}")
    console = Console()
    console.print(facts)
    _show_kernels(console)


def _show_kernels(console: Console) -> None:
    """Print what each kernel is, and below the table each reason why some do not run here."""
    table = Table(title="kernels")
    for heading in ("kernel", "device", "runs here", "what it is"):
        table.add_column(heading, no_wrap=heading != "what it is")
    kept_out: dict[str, list[str]] = {}
    for kernel in registry.KERNELS.values():
        reason = try_kernel(kernel)
        label = f"{kernel.name} (baseline)" if kernel.baseline else kernel.name
        table.add_row(label, kernel.device, "no" if reason else "yes", kernel.summary)
        if reason:
            kept_out.setdefault(reason, []).append(f"{kernel.name} ({kernel.device})")
    console.print(table)
    for reason, names in kept_out.items():
        console.print(f"not here, {reason}: {', '.join(names)}", markup=False, highlight=False)
