"""The rules in use, at the sizes for which their authors state them."""

import math

import pytest

from flowjax.analysis.rules_of_thumb import rules_of_thumb


def test_the_rules_at_their_authors_own_sizes() -> None:
    rae = {rule.name: rule.s for rule in rules_of_thumb((16, 16, 768))}
    assert rae["RAE"] == pytest.approx(1 / math.sqrt(196608 / 4096))
    flux = {rule.name: rule.s for rule in rules_of_thumb((128, 128, 16))}  # 1024 x 1024 pixels
    assert flux["Flux"] == pytest.approx(0.317, abs=5e-4)
    assert flux["by resolution"] == pytest.approx(1 / 4)
    assert flux["SD3, diffusers"] == pytest.approx(1 / 3)


def test_vectors_have_no_resolution() -> None:
    assert {rule.name for rule in rules_of_thumb((64,))} == {"none", "LightningDiT", "SD3, diffusers", "RAE"}
