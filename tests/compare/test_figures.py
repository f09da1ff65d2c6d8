"""Figures that can be read, whatever they show."""

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure

from bclightning.compare.figures import label_logarithmic


@given(st.floats(1e-4, 50), st.floats(1.2, 1e6))
def test_a_logarithmic_axis_has_labels_enough_and_none_outside_of_it(low, ratio):
    axes = Figure().add_subplot()
    axes.set_yscale("log")
    axes.set_ylim(low, low * ratio)
    label_logarithmic(axes.yaxis)
    ticks = list(axes.yaxis.get_majorticklocs())
    assert 3 <= len(ticks) <= 15
    assert low <= min(ticks) <= max(ticks) <= low * ratio
    labels = axes.yaxis.get_major_formatter().format_ticks(ticks)
    assert len(set(labels)) == len(labels)
    assert list(axes.yaxis.get_minorticklocs()) == []


def test_narrow_and_wide_ranges_get_round_labels():
    def labels(low: float, high: float) -> list[str]:
        axes = Figure().add_subplot()
        axes.set_xscale("log")
        axes.set_xlim(low, high)
        label_logarithmic(axes.xaxis)
        return axes.xaxis.get_major_formatter().format_ticks(axes.xaxis.get_majorticklocs())

    assert labels(13, 50) == ["15", "20", "25", "30", "40", "50"]
    assert labels(1.06, 1.27) == ["1.08", "1.12", "1.16", "1.2", "1.24"]
    assert labels(1e-4, 1e4) == [f"{10.0**exponent:g}" for exponent in range(-4, 5)]
