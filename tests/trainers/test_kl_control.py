import pytest

from tfrlhf import AdaptiveKL
from tfrlhf import FixedKL


def test_a_fixed_weight_stays():
    kl = FixedKL(0.05)
    assert kl.initial == 0.05
    assert kl.next_weight(0.05, kl=100.0, episodes=512) == 0.05


@pytest.mark.parametrize(
    ("kl", "expected"),
    [
        (9.0, 0.151536),  # Clipped at +20 %.
        (6.0, 0.15),
        (5.0, 0.14872),
        (3.0, 0.148464),  # Clipped at -20 %.
        (-1.0, 0.148464),
    ],
)
def test_an_adaptive_weight_follows_the_kl(kl, expected):
    control = AdaptiveKL(target=6.0, initial=0.15, horizon=10_000)
    assert control.initial == 0.15
    weight = control.next_weight(0.15, kl=kl, episodes=512)
    assert weight == pytest.approx(expected, abs=5e-7)


def test_half_the_episodes_change_half_as_much():
    control = AdaptiveKL(target=6.0)
    changes = [control.next_weight(0.15, 9.0, n) - 0.15 for n in (256, 512)]
    assert changes[1] == pytest.approx(2 * changes[0])


@pytest.mark.parametrize("settings", [{"target": 0.0}, {"horizon": 0}])
def test_target_and_horizon_are_positive(settings):
    with pytest.raises(ValueError, match="`target` and `horizon` must be"):
        AdaptiveKL(**{"target": 6.0} | settings)
