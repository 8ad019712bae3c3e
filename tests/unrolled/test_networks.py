"""Learned proximal operators: the identity at first, for any kind of image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from invlearn.unrolled import Learned, ResidualCNN, UNet, WaveletUNet

KINDS = [ResidualCNN(8, 1), UNet(4, 2), WaveletUNet(4, 2)]


@pytest.fixture(autouse=True)
def seeded_weights():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        yield


def noise(*shape: int, complex: bool = False, seed: int = 0) -> Tensor:
    kind = torch.complex64 if complex else torch.float32
    return torch.randn(shape, dtype=kind, generator=torch.Generator().manual_seed(seed))


def stirred(prior: Learned, seed: int = 0) -> Learned:
    """With weights that are not those of the start."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in prior.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return prior


@pytest.mark.parametrize("kind", KINDS, ids=repr)
@pytest.mark.parametrize("complex", [False, True])
@pytest.mark.parametrize(("ndim", "channels"), [(1, 1), (2, 1), (2, 3), (3, 1)])
def test_identity_at_first_then_anything(kind, complex: bool, ndim: int, channels: int) -> None:
    prior = Learned(kind, channels=channels, ndim=ndim, complex=complex)
    spatial = (9, 10, 7)[:ndim]  # odd sizes too
    shape = (2, 2, *((channels,) if channels > 1 else ()), *spatial)
    x = noise(*shape, complex=complex)
    assert_close(prior(x), x)
    out = stirred(prior)(x)
    assert out.shape == x.shape
    assert out.dtype == x.dtype
    assert (out - x).abs().max() > 1e-3
    assert_close(prior(x[0, 0]), out[0, 0], atol=1e-5, rtol=1e-4)
    assert prior(x.to(torch.complex128 if complex else torch.float64)).dtype in (
        torch.float64,
        torch.complex128,
    )


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_unit_of_the_data_does_not_matter(kind) -> None:
    x = noise(2, 8, 8)
    scaled = stirred(Learned(kind))
    assert_close(scaled(1000 * x), 1000 * scaled(x), rtol=1e-4, atol=0.01)
    plain = stirred(Learned(kind, normalise=False))
    assert (plain(10 * x) - 10 * plain(x)).abs().max() > 0.01
    assert torch.isfinite(scaled(torch.zeros(1, 8, 8))).all()


def test_real_and_imaginary_parts_are_channels() -> None:
    prior = Learned(ResidualCNN(4, 1), channels=2, complex=True)
    assert prior.network[0].in_channels == prior.network[-1].out_channels == 4

    class Probe(nn.Module):
        def forward(self, z: Tensor) -> Tensor:
            self.seen = z
            return torch.zeros_like(z)

    weight = nn.Parameter(torch.zeros(1))
    prior.network = Probe()
    prior.network.register_parameter("weight", weight)
    x = noise(2, 5, 5, complex=True)
    prior(x)
    scale = torch.view_as_real(x).square().mean().sqrt()
    assert_close(prior.network.seen, torch.cat([x.real, x.imag]).unsqueeze(0) / scale)


def test_settings_change_the_network() -> None:
    def count(kind) -> int:
        return sum(p.numel() for p in kind.build(1, 2).parameters())

    assert count(ResidualCNN(8, 1)) < count(ResidualCNN(8, 2)) < count(ResidualCNN(16, 2))
    assert count(UNet(4, 1)) < count(UNet(4, 2)) < count(UNet(8, 2))
    x = noise(1, 1, 16, 16)
    haar, other = (stirred(Learned(WaveletUNet(4, 1, wavelet))) for wavelet in ("haar", "db2"))
    other.load_state_dict(haar.state_dict())
    assert (haar(x) - other(x)).abs().max() > 1e-4
    assert not any(isinstance(m, nn.BatchNorm2d) for m in UNet(4, 1).build(1, 2).modules())


@pytest.mark.parametrize("kind", KINDS, ids=repr)
def test_learns_to_denoise(kind) -> None:
    generator = torch.Generator().manual_seed(0)
    prior = Learned(kind)
    clean = torch.randn(16, 1, 1, generator=generator).expand(16, 8, 8) * torch.ones(16, 8, 8)
    noisy = clean + 0.3 * torch.randn(16, 8, 8, generator=generator)
    optimiser = torch.optim.Adam(prior.parameters(), 1e-2)
    for _ in range(40):
        loss = (prior(noisy) - clean).square().mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    held_out = clean + 0.3 * torch.randn(16, 8, 8, generator=generator)
    assert (prior(held_out) - clean).square().mean() < 0.7 * (held_out - clean).square().mean()


def test_round_trip_and_fresh_weights() -> None:
    prior = Learned(WaveletUNet(4, 2, "db2"), channels=3, ndim=3, complex=True, normalise=False)
    again = Learned.from_dict(prior.to_dict())
    assert again.to_dict() == prior.to_dict()
    assert repr(again) == repr(prior)
    fresh = prior.fresh()
    pairs = zip(fresh.parameters(), prior.parameters(), strict=True)
    assert any(not torch.equal(a, b) for a, b in pairs)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ResidualCNN(0), "ResidualCNN: width must be at least 1, got 0"),
        (lambda: ResidualCNN(4, 0), "blocks must be at least 1"),
        (lambda: UNet(4, 0), "UNet: levels must be at least 1"),
        (lambda: WaveletUNet(0), "WaveletUNet: width"),
        (lambda: Learned(channels=0), "at least 1 channel"),
        (lambda: Learned(ndim=4), "got 1 channels and ndim=4"),
        (lambda: Learned()(torch.zeros(3)), r"acts on \(\*batch, n, n\) with 1 channels, got \(3,\)"),
        (lambda: Learned(channels=2)(torch.zeros(3, 4, 4)), r"\(\*batch, C, n, n\) with 2 channels"),
        (lambda: Learned()(torch.zeros(4, 4, dtype=torch.complex64)), "build it with complex=True"),
        (
            lambda: Learned.from_dict({"network": {"kind": "Transformer"}}),
            "no network 'Transformer'; there are",
        ),
    ],
)
def test_bad_input(build, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()
