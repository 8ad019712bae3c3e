"""Is my accelerated MRI learnable? Cartesian lines, random masks, shifts and rotations.

    python examples/accelerated_mri.py [--size 64] [--dimension 20]

Prints one line a case: what was asked, the verdict, how many of the k-space entries nobody sees.
"""

from __future__ import annotations

import argparse

import torch

from invlearn.identifiability import check
from invlearn.identifiability.report import Report
from invlearn.physics import OperatorFamily
from invlearn.physics.groups import Rotations90, Shifts
from invlearn.physics.mri import CartesianMRI


def line_mask(size: int, every: int, offset: int, center: int) -> torch.Tensor:
    """Equispaced lines (rows) plus `center` lines around the zero frequency in the middle."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    mask[offset::every] = True
    mask[size // 2 - center // 2 : size // 2 - center // 2 + center] = True
    return mask


def random_line_masks(count: int, size: int, keep: float, center: int, seed: int) -> torch.Tensor:
    """Random lines, denser at the centre as in practice; `(count, size, size)`."""
    generator = torch.Generator().manual_seed(seed)
    masks = torch.rand(count, size, generator=generator) < keep
    masks[:, size // 2 - center // 2 : size // 2 - center // 2 + center] = True
    return masks[:, :, None].expand(count, size, size)


def cases(size: int, dimension: int) -> list[tuple[str, Report]]:
    """All questions of the how-to page and their answers."""
    center = max(2, size // 16)
    lines = CartesianMRI(line_mask(size, 4, 0, center))
    shape = (size, size)
    many = {count: random_line_masks(count, size, 0.25, center, seed=0) for count in (4, 40)}
    spread = torch.rand(1, *shape, generator=torch.Generator().manual_seed(1)) < 0.4
    return [
        ("every 4th line, one mask", check(lines, dimension=dimension)),
        ("every 4th line, shifts", check(lines, group=Shifts(shape), dimension=dimension)),
        (
            "every 4th line, rotations by 90 degrees",
            check(lines, group=Rotations90(shape), dimension=dimension),
        ),
        ("4 random line masks", check(OperatorFamily.from_kspace_masks(many[4]), dimension=dimension)),
        ("40 random line masks", check(OperatorFamily.from_kspace_masks(many[40]), dimension=dimension)),
        (
            "one random 2-D mask of 40 %, rotations by 90 degrees",
            check(OperatorFamily.from_kspace_masks(spread), group=Rotations90(shape), dimension=dimension),
        ),
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--size", type=int, default=64, help="image size, pixels a side")
    parser.add_argument("--dimension", type=int, default=20, help="dimension k of the signal set")
    args = parser.parse_args()
    for name, report in cases(args.size, args.dimension):
        unseen = int(-(report.bounds[0].margin or 0))
        print(f"{name:<55}{report.verdict:<12}{unseen:>6} of {report.n} unseen")


if __name__ == "__main__":
    main()
