"""A verdict in words."""

from flowjax.analysis.verdict import judge


def test_a_verdict_says_what_holds_and_what_does_not() -> None:
    assert judge({"a": True, "b": True}).outcome == "reproduced"
    assert judge({"a": True, "b": False}).outcome == "partly"
    assert str(judge({"a": False})) == "Not on this data: not so: a"
    assert judge({"a": True}, model_strong_enough=False).outcome == "model too weak"
    assert "has not been measured" in judge({"a": True}, model_strong_enough=None).why
