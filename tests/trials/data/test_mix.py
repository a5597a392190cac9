import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, one_hot

from trials.data import Target
from trials.data.mix import MIXES, Mixed, cutmix, mixup, mixup_or_cutmix
from trials.errors import DataError
from trials.fit.loss import absolute_error, build_loss, correct_count, mean_loss
from trials.recipe import CrossEntropy, Mse

COUNT, CLASSES = 8, 5


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered(height: int = 7, width: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Image i is i everywhere, and so is its target: a blend shows its partner and its share."""
    targets = torch.arange(COUNT)
    return targets.view(-1, 1, 1, 1).expand(COUNT, 3, height, width).float().contiguous(), targets


def test_mixup_blends_each_example_with_its_partner_by_lam() -> None:
    inputs, targets = numbered()
    mixed = mixup(inputs, targets, 1.0, seeded(0))
    assert torch.equal(mixed.targets_a, targets)
    assert sorted(mixed.targets_b.tolist()) == targets.tolist()  # every example is a partner once
    for row in range(COUNT):
        blend = mixed.lam * row + (1 - mixed.lam) * int(mixed.targets_b[row])
        np.testing.assert_allclose(mixed.inputs[row], blend, rtol=1e-5)


def test_mixup_takes_features_too() -> None:
    features, targets = torch.eye(COUNT), torch.arange(COUNT)
    mixed = mixup(features, targets, 1.0, seeded(0))
    expected = mixed.lam * features + (1 - mixed.lam) * features[mixed.targets_b]
    torch.testing.assert_close(mixed.inputs, expected)


@pytest.mark.parametrize("alpha", [0.2, 1.0, 4.0])
def test_lam_has_the_moments_of_its_beta(alpha: float) -> None:
    inputs, targets = torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64)
    generator, draws = seeded(0), 4000
    lams = np.array([mixup(inputs, targets, alpha, generator).lam for _ in range(draws)])
    variance = 1 / (4 * (2 * alpha + 1))
    assert abs(lams.mean() - 0.5) < 4 * np.sqrt(variance / draws)
    np.testing.assert_allclose(lams.var(), variance, rtol=0.1)


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_blended_loss_is_the_loss_of_the_blended_labels(mix: object, smoothing: float) -> None:
    inputs, _ = numbered()
    targets = torch.arange(COUNT) % CLASSES
    mixed = mix(inputs, targets, 1.0, seeded(3))  # type: ignore[operator]
    logits = torch.randn(COUNT, CLASSES, generator=seeded(4))
    section = CrossEntropy(name="cross_entropy", label_smoothing=smoothing)
    classes = Target("classification", tuple("abcde"))
    loss = build_loss(section, classes, torch.device("cpu"))
    blended = mean_loss(loss, logits, mixed.targets_a, (mixed.targets_b, mixed.lam))
    labels = mixed.lam * one_hot(mixed.targets_a, CLASSES) + (1 - mixed.lam) * one_hot(mixed.targets_b, CLASSES)
    torch.testing.assert_close(blended, cross_entropy(logits, labels, label_smoothing=smoothing))


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_blended_numbers_pull_as_their_blend_does(mix: object) -> None:
    inputs, _ = numbered()
    targets = torch.randn(COUNT, generator=seeded(5))
    mixed = mix(inputs, targets, 1.0, seeded(3))  # type: ignore[operator]
    assert mixed.targets_a.dtype == mixed.targets_b.dtype == torch.float32
    guesses = torch.randn(COUNT, 1, generator=seeded(4), requires_grad=True)
    loss = build_loss(Mse(name="mse"), Target("regression"), torch.device("cpu"))
    blended = mean_loss(loss, guesses, mixed.targets_a, (mixed.targets_b, mixed.lam))
    goals = mixed.lam * mixed.targets_a + (1 - mixed.lam) * mixed.targets_b
    # lam (g - a)^2 + (1 - lam) (g - b)^2 = (g - goal)^2 + lam (1 - lam) (a - b)^2
    apart = mixed.lam * (1 - mixed.lam) * (mixed.targets_a - mixed.targets_b).square().mean()
    plain = (guesses[:, 0] - goals).square().mean()
    torch.testing.assert_close(blended, plain + apart)
    (pull,), (same,) = torch.autograd.grad(blended, guesses), torch.autograd.grad(plain, guesses)
    torch.testing.assert_close(pull, same)
    errors = (guesses[:, 0] - mixed.targets_a).abs(), (guesses[:, 0] - mixed.targets_b).abs()
    by_shares = mixed.lam * errors[0].sum() + (1 - mixed.lam) * errors[1].sum()
    torch.testing.assert_close(absolute_error(guesses, mixed.targets_a, (mixed.targets_b, mixed.lam)), by_shares)


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_a_guess_counts_by_the_share_of_the_label_it_hits(mix: object) -> None:
    inputs, _ = numbered()
    targets = torch.arange(COUNT) % CLASSES
    mixed = mix(inputs, targets, 1.0, seeded(3))  # type: ignore[operator]
    guesses = torch.randint(CLASSES, (COUNT,), generator=seeded(6))
    expected = sum(
        mixed.lam * float(guess == a) + (1 - mixed.lam) * float(guess == b)
        for guess, a, b in zip(guesses.tolist(), mixed.targets_a.tolist(), mixed.targets_b.tolist(), strict=True)
    )
    counted = correct_count(one_hot(guesses, CLASSES).float(), mixed.targets_a, (mixed.targets_b, mixed.lam))
    assert float(counted) == pytest.approx(expected)


def test_one_of_the_two_is_drawn_for_each_batch() -> None:
    inputs, targets = numbered()
    generator, draws = seeded(0), 400
    mixups = 0
    for _ in range(draws):
        state = generator.get_state()
        mixed = mixup_or_cutmix(inputs, targets, 1.0, generator)
        twin = torch.Generator()
        twin.set_state(state)
        torch.randint(2, (), generator=twin)
        after = twin.get_state()
        candidates = []
        for mix in (mixup, cutmix):
            twin.set_state(after)
            candidates.append(mix(inputs, targets, 1.0, twin).inputs)
        is_mixup, is_cutmix = (torch.equal(mixed.inputs, candidate) for candidate in candidates)
        assert is_mixup != is_cutmix
        mixups += is_mixup
    assert abs(mixups - draws / 2) < 4 * np.sqrt(draws / 4)


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_pastes_one_box_whose_share_is_one_minus_lam(seed: int) -> None:
    inputs, targets = numbered()
    mixed = cutmix(inputs, targets, 1.0, seeded(seed))
    boxes = set()
    for row in range(COUNT):
        partner = int(mixed.targets_b[row])
        assert set(mixed.inputs[row].unique().tolist()) <= {float(row), float(partner)}
        if partner == row:
            continue
        pasted = (mixed.inputs[row] == partner).numpy()
        assert (pasted == pasted[0]).all()  # the same in every channel
        assert abs(mixed.lam - (1 - pasted[0].mean())) < 1e-12
        ys, xs = np.nonzero(pasted[0])
        if len(ys):
            assert pasted[0][ys.min() : ys.max() + 1, xs.min() : xs.max() + 1].all()
            boxes.add((ys.min(), ys.max(), xs.min(), xs.max()))
    assert len(boxes) <= 1


def test_a_cutmix_box_has_sides_sqrt_one_minus_lam_where_it_is_not_clipped() -> None:
    side = 40
    inputs = torch.arange(2.0).view(2, 1, 1, 1).expand(2, 1, side, side)
    targets, alpha = torch.arange(2), 1.0
    checked = 0
    for seed in range(60):
        drawn = mixup(inputs, targets, alpha, seeded(seed)).lam  # the same seed draws the same lam first
        mixed = cutmix(inputs, targets, alpha, seeded(seed))
        pasted = (mixed.inputs[0, 0] != 0).numpy()
        ys, xs = np.nonzero(pasted)
        if not len(ys) or 0 in (ys.min(), xs.min()) or side - 1 in (ys.max(), xs.max()):
            continue
        assert pasted.any(1).sum() == pasted.any(0).sum() == int(side * np.sqrt(1 - drawn))
        checked += 1
    assert checked >= 5


def test_cutmix_needs_images() -> None:
    with pytest.raises(DataError, match=r"data.mix: cutmix needs images \(N, C, H, W\), found shape \(4, 3\); use mix"):
        cutmix(torch.zeros(4, 3), torch.zeros(4, dtype=torch.int64), 1.0, seeded(0))


@pytest.mark.parametrize("mix", MIXES.values(), ids=MIXES.keys())
def test_only_the_passed_generator_is_drawn_from(mix: object) -> None:
    inputs, targets = numbered()
    before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index,union-attr]

    def run(seed: int) -> Mixed:
        return mix(inputs, targets, 1.0, seeded(seed))  # type: ignore[operator, no-any-return]

    first, again, other = run(1), run(1), run(2)
    assert torch.equal(before, torch.get_rng_state())
    assert (numpy_before == np.random.get_state()[1]).all()  # type: ignore[index]
    assert torch.equal(first.inputs, again.inputs)
    assert first.lam == again.lam != other.lam
    assert torch.equal(inputs, numbered()[0])
