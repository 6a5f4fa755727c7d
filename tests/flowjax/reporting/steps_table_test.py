"""What a page offers at each setting is what `flowjax.conventions` tells of it."""

import itertools

import pytest

from flowjax.conventions import CONVENTIONS, told
from flowjax.reporting.steps_table import PLAIN, offered, settings
from flowjax.stages import advice


@pytest.mark.parametrize("name", ["diffusers", "edm", "comfyui", "repa"])
def test_every_setting_has_the_frameworks_own_line(name: str) -> None:
    shifts, ends = [0.25, 1.0, 3.0], [0.0, 0.1, 0.45, 0.6, 1.0]
    found = offered(name, shifts, ends, 20)
    pairs = list(itertools.combinations(range(len(ends)), 2))
    for i, s in enumerate(shifts):
        steps = found["steps"][i if len(found["steps"]) > 1 else 0]
        assert steps == pytest.approx(CONVENTIONS[name].times(s, 20)[:-1], abs=1e-5)
        places = found["interval_of"][i if len(found["interval_of"]) > 1 else 0]
        for place, (low, high) in zip(places, pairs, strict=True):
            line = told(name, s, (ends[low], ends[high]), 20)
            assert (found["shift_lines"][i], found["interval_lines"][place]) == (line["shift_line"], line["interval_line"])
    assert len(found["steps"]) == (1 if name in ("edm", "repa") else 3)
    assert len(found["interval_of"]) == (3 if name in ("diffusers", "comfyui") else 1)


def test_sliders_offer_what_is_advised_and_no_shift_at_all() -> None:
    advised = advice(0.3, [1.0] * 50, share=None)
    shifts, ends = settings(advised)
    assert advised.shift.value is not None
    assert advised.guidance_interval.value is not None
    assert {1.0, round(advised.shift.value, 4)} <= set(shifts)
    assert {0.0, 1.0, 0.3, round(advised.guidance_interval.value[1], 4)} <= set(ends)
    assert shifts == sorted(shifts)
    assert settings(advice(None, [1.0]))[0] == [s for s in shifts if s != round(advised.shift.value, 4)]
    assert offered(PLAIN, [0.5], [0.0, 0.3, 1.0], 4)["steps"] == [pytest.approx([0, 1 / 7, 1 / 3, 0.6], abs=1e-5)]
