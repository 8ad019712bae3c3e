"""The tour's neuron job: simulated neurons, dim and broken, found, traced, and held against their truth."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from invlearn.cli.options import Settings
from invlearn.io.runs import Run
from invlearn.reports.page import Block, Code, Section, Table, Text

INPUTS, OUT = "inputs", "neurons"
STACK, MASK, TREE = "neurons.tif", "neurons_mask.tif", "neurons.swc"
SHAPE = (64, 192, 192)
NOISE = 0.7
FIRST_SEED = 1  # two neurons with somas
QUESTION = "Where are the neurons in this noisy stack?"


def commands(sample: Any) -> list[str]:
    """What makes the stack, segments and traces it, and measures, as typed."""
    size, shape = (" ".join(f"{n:.6g}" for n in each) for each in (sample.voxel_size, sample.stack.shape))
    again = f"{OUT}_again"
    return [
        f"invlearn neuron simulate -o simulated --seed {sample.seed} --noise {sample.noise:g} "
        f"--shape {shape}",
        f"invlearn segment {INPUTS}/{STACK} -o {again} --trace",
        f"invlearn neuron evaluate {again} --truth {INPUTS}/{TREE} --voxel-size {size}",
    ]


def numbers(found: dict[str, Any], mask: dict[str, Any]) -> Table:
    """How good it is."""
    rows = [
        ("cable of the tracing within 2 voxels of a true one", f"{100 * found['precision']:.1f} %"),
        ("true cable within 2 voxels of the tracing", f"{100 * found['recall']:.1f} %"),
        ("mean distance between the two (ESA)", f"{found['esa']:.2f} voxels"),
        ("share that is 2 voxels apart or more (PDS)", f"{100 * found['pds']:.1f} %"),
        ("voxels of the mask: F1, exactly", f"{mask['f1']:.3f}"),
    ]
    return Table(("against the truth", "value"), rows)


def exhibits(folder: Path, settings: Settings, run: Run) -> Iterator[Section]:
    """One section; the stack and its truth are left in `folder`/inputs, the results in `folder`/neurons."""
    from invlearn.cli.segment import write_report
    from invlearn.io.stacks import open_stack, write_stack
    from invlearn.io.swc import write_swc
    from invlearn.neuro import compare, overlap, segment, simulate
    from invlearn.neuro.prediction import StackFile
    from invlearn.neuro.segmentation import How
    from invlearn.reports.neurons import summary

    inputs, out = folder / INPUTS, folder / OUT
    inputs.mkdir(exist_ok=True)
    out.mkdir()
    with settings.progress(QUESTION), run.timed("neurons"):
        sample = simulate(SHAPE, seed=FIRST_SEED + settings.seed, noise=NOISE)
        write_stack(inputs / STACK, sample.stack, sample.voxel_size)
        write_stack(inputs / MASK, sample.mask, sample.voxel_size)
        write_swc(inputs / TREE, sample.tree, comment=f"simulated, seed {sample.seed}")
        file = StackFile(inputs / STACK)
        result = segment(file, trace=True, output=out, how=How(device=str(settings.torch_device())))
    write_report(out / "report.html", file, result, run)
    mask = overlap(open_stack(out / "mask.tif").array(), sample.mask).to_dict()
    blocks: list[Block] = [Text(story(sample)), *map(Code, commands(sample))]
    words = "Not in this one: nothing was found that could be traced."
    run.metrics["neurons"] = {"mask": mask, "tracing": None}
    if result.tree is not None and len(result.tree.edges):
        found = compare(result.tree, sample.tree, voxel_size=sample.voxel_size).to_dict()
        run.metrics["neurons"]["tracing"] = found
        blocks.append(numbers(found, mask))
        words = (
            f"{100 * found['recall']:.0f} % of {sample.tree.length:,.0f} µm of cable were found, and "
            f"{100 * found['precision']:.0f} % of what was traced is true, within 2 voxels."
        )
    yield summary(open_stack(inputs / STACK), result, sample.tree, QUESTION, blocks, words)


def story(sample: Any) -> str:
    """What is shown."""
    size = " × ".join(f"{side:.2g}" for side in sample.voxel_size)
    return (
        f"Neurons that were grown by chance, seen through a simulated microscope with voxels of {size} µm: "
        "blurred more along the axis than across, labelled unevenly and with gaps, on an uneven background "
        "with bodies that glow by themselves and fibres of other cells, counted photon by photon. The "
        "network never saw this stack; the truth is known exactly."
    )
