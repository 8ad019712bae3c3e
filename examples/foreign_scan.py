"""A fingerprinting scan made without invlearn, in the file that `invlearn mrf reconstruct` reads.

It stands for a scanner's converter or for another simulator: its own Bloch simulation (extended phase
graphs in plain NumPy), coil maps, spiral and noise; the transform is bare FINUFFT, the file is written
with the bare `ismrmrd` package.

    python examples/foreign_scan.py maps.npz scan.h5 sequence.csv --frames 300 --coils 8 --snr 30
    invlearn mrf reconstruct scan.h5 -o out --sequence sequence.csv --inversion-time 0.018
"""

from __future__ import annotations

import argparse
from pathlib import Path

import finufft
import ismrmrd
import numpy as np

INVERSION_TIME = 0.018  # s


def train(frames: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Flip angles (deg), repetition times (s) and echo times (s) of a train of flip-angle lobes."""
    n = np.arange(frames)
    lobe, phase = n // 200, (n % 200) / 200
    height = np.array([60.0, 35.0, 68.0, 25.0, 50.0])[lobe % 5]
    flip = 4.0 + height * np.sin(np.pi * phase) ** 1.2
    tr = 0.0125 + 0.0009 * np.sin(2 * np.pi * n / 151)
    return flip, tr, np.full(frames, 0.0021)


def fingerprints(
    flip: np.ndarray, tr: np.ndarray, te: np.ndarray, t1: np.ndarray, t2: np.ndarray, states: int = 100
) -> np.ndarray:
    """Signals `(voxels, frames)` of unbalanced SSFP after an inversion, one spoiled cycle a repetition.

    Complex configurations F+, F- and Z; pulses about x turn (F+, F-, Z) by Woessner's matrix.
    """
    flip = np.deg2rad(flip)
    states = min(states, len(flip) + 1)
    signal = np.zeros((len(t1), len(flip)), complex)
    for start in range(0, len(t1), 256):  # a block stays in the cache
        r1, r2 = 1 / t1[start : start + 256, None], 1 / t2[start : start + 256, None]
        plus, minus, z = (np.zeros((len(r1), states), complex) for _ in range(3))
        z[:, 0] = 1 - 2 * np.exp(-INVERSION_TIME * r1[:, 0])
        for n in range(len(flip)):
            c2, s2 = np.cos(flip[n] / 2) ** 2, np.sin(flip[n] / 2) ** 2
            s, c = np.sin(flip[n]), np.cos(flip[n])
            plus, minus, z = (
                c2 * plus + s2 * minus - 1j * s * z,
                s2 * plus + c2 * minus + 1j * s * z,
                -0.5j * s * (plus - minus) + c * z,
            )
            signal[start : start + 256, n] = plus[:, 0] * np.exp(-te[n] * r2[:, 0])
            e1, e2 = np.exp(-tr[n] * r1), np.exp(-tr[n] * r2)
            plus, minus, z = e2 * plus, e2 * minus, e1 * z
            z[:, :1] += 1 - e1
            plus[:, 1:] = plus[:, :-1].copy()
            minus[:, :-1] = minus[:, 1:].copy()
            minus[:, -1] = 0
            plus[:, 0] = minus[:, 0].conj()
    return signal


def spiral(frames: int, samples: int, turns: float) -> np.ndarray:
    """Golden-angle spirals `(frames, samples, 2)` out to |k| = 0.5 cycles a pixel."""
    t = np.linspace(0, 1, samples)
    radius, angle = 0.499 * t**0.75, 2 * np.pi * turns * t**0.75
    turned = angle + np.arange(frames)[:, None] * np.pi * (3 - np.sqrt(5))
    return np.stack([radius * np.cos(turned), radius * np.sin(turned)], -1)


def coil_maps(coils: int, shape: tuple[int, int]) -> np.ndarray:
    """Sensitivities `(coils, *shape)` of loops around the object, falling off with the distance."""
    y, x = (np.linspace(-1, 1, size) for size in shape)
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    dy, dx = y[:, None] - 1.4 * np.sin(angle), x - 1.4 * np.cos(angle)
    maps = np.exp(-1j * angle) * (dx + 1j * dy) / (0.4 + dy**2 + dx**2)
    return maps / np.sqrt((abs(maps) ** 2).sum(0)).max()


def kspace(images: np.ndarray, maps: np.ndarray, trajectory: np.ndarray) -> np.ndarray:
    """Samples `(coils, frames, samples)` of the frames `(frames, H, W)`, each on its own arm."""
    out = np.empty((len(maps), *trajectory.shape[:2]), complex)
    for n, image in enumerate(images):
        ky, kx = 2 * np.pi * trajectory[n, :, 1], 2 * np.pi * trajectory[n, :, 0]
        # FINUFFT counts positions from the middle of the grid, as the file's convention does.
        out[:, n] = finufft.nufft2d2(ky, kx, maps * image, isign=-1, eps=1e-6)
    return out


def simulate(
    tissue: dict[str, np.ndarray], frames: int, coils: int, snr: float, samples: int = 1000, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Noisy samples `(coils, frames, samples)` and the trajectory `(frames, samples, 2)`."""
    pd = tissue["pd"]
    inside = pd > 0
    values, which = np.unique(
        np.stack([tissue["t1"][inside], tissue["t2"][inside]]), axis=1, return_inverse=True
    )
    signal = fingerprints(*train(frames), *values)[which.ravel()] * pd[inside][:, None]
    trajectory = spiral(frames, samples, turns=0.1 * max(pd.shape))
    maps = coil_maps(coils, pd.shape)
    images = np.zeros((frames, *pd.shape), complex)
    images[:, inside] = signal.T
    clean = kspace(images, maps, trajectory)
    sigma = np.sqrt(np.mean(abs(clean) ** 2)) / 10 ** (snr / 20)
    rng = np.random.default_rng(seed)
    noise = rng.standard_normal((*clean.shape, 2)) @ np.array([1, 1j]) / np.sqrt(2)
    return clean + sigma * noise, trajectory


HEADER = """<?xml version="1.0"?>
<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD">
 <experimentalConditions><H1resonanceFrequency_Hz>128000000</H1resonanceFrequency_Hz></experimentalConditions>
 <encoding>
  <encodedSpace>
   <matrixSize><x>{w}</x><y>{h}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{w}</x><y>{h}</y><z>5</z></fieldOfView_mm>
  </encodedSpace>
  <reconSpace>
   <matrixSize><x>{w}</x><y>{h}</y><z>1</z></matrixSize>
   <fieldOfView_mm><x>{w}</x><y>{h}</y><z>5</z></fieldOfView_mm>
  </reconSpace>
  <encodingLimits/>
  <trajectory>spiral</trajectory>
 </encoding>
</ismrmrdHeader>"""


def write(path: Path, data: np.ndarray, trajectory: np.ndarray, shape: tuple[int, int]) -> None:
    """One acquisition a frame; nothing on the sequence in the header, as many converters leave it."""
    with ismrmrd.Dataset(str(path), create_if_needed=True) as file:
        file.write_xml_header(HEADER.format(h=shape[0], w=shape[1]).encode())
        for n in range(data.shape[1]):
            readout = ismrmrd.Acquisition.from_array(
                data[:, n].astype(np.complex64), trajectory[n].astype(np.float32)
            )
            readout.idx.repetition = n
            file.append_acquisition(readout)


def write_sequence(path: Path, frames: int) -> None:
    """The sequence as the CSV that `--sequence` reads."""
    flip, tr, te = train(frames)
    rows = [f"{f:.9g},0,{r:.9g},{e:.9g}" for f, r, e in zip(flip, tr, te, strict=True)]
    path.write_text("\n".join(["flip_angle_deg,phase_deg,tr_s,te_s", *rows]) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("maps", type=Path, help=".npz with t1, t2 (s) and pd")
    parser.add_argument("scan", type=Path)
    parser.add_argument("sequence", type=Path)
    parser.add_argument("--frames", type=int, default=300)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--snr", type=float, default=30.0, help="dB")
    args = parser.parse_args()
    with np.load(args.maps) as tissue:
        data, trajectory = simulate(dict(tissue), args.frames, args.coils, args.snr)
        shape = tissue["pd"].shape
    write(args.scan, data, trajectory, shape)
    write_sequence(args.sequence, args.frames)


if __name__ == "__main__":
    main()
