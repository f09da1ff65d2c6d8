"""Steps as plain data: what is accepted, and what is refused for which reason."""

import pytest

from bclightning.inference.graph import Step, shapes


def pooled(**settings) -> dict[str, object]:
    return {"kind": "max_pool2d", "kernel_size": [1, 1], "stride": [1, 1], "padding": [0, 0]} | (
        settings
    )


def convolved(**settings) -> dict[str, object]:
    sizes = {"in_channels": 1, "out_channels": 1, "groups": 1}
    pairs = {"kernel_size": [1, 1], "stride": [1, 1], "padding": [0, 0], "dilation": [1, 1]}
    flags = {"name": "more", "binary": True, "bias": False}
    return {"kind": "conv2d", **sizes, **pairs, **flags} | settings


def linear(**settings) -> dict[str, object]:
    flags = {"name": "last", "binary": False, "bias": True}
    return {"kind": "linear", "in_features": 4, "out_features": 2, **flags} | settings


@pytest.mark.parametrize(
    "step",
    [
        pooled(kernel_size=[2, 2], padding=[1, 1]),
        convolved(in_channels=2, out_channels=2, groups=2),
        convolved(kernel_size=[3, 3], dilation=[2, 2], padding=[2, 2]),
        linear(in_features=2**24 - 1),
        {"kind": "affine", "name": "norm", "channels": 3},
        {"kind": "relu"},
        {"kind": "flatten"},
    ],
)
def test_a_step_is_what_its_plain_data_say(step):
    assert Step.parse(step).as_json() == step


@pytest.mark.parametrize(
    ("step", "sentence"),
    [
        (
            pooled(kernel_size=[2, 2], padding=[1, 2]),
            r"max_pool2d: padding must be at most half of the effective kernel size, got padding "
            r"\[1, 2\] and kernel_size \[2, 2\]",
        ),
        (convolved(padding=[2000, 0]), "padding must be at most half of the effective kernel size"),
        (
            convolved(in_channels=2, out_channels=3, groups=2),
            "conv2d 'more': out_channels must be divisible by groups, got 3 and 2",
        ),
        (
            convolved(in_channels=3, out_channels=2, groups=2),
            "conv2d 'more': in_channels must be divisible by groups, got 3 and 2",
        ),
        (
            convolved(stride=[0, 1]),
            r"stride must be a pair of integers in \[1, 2\*\*24\), got \[0, 1\]",
        ),
        (convolved(stride=1), r"stride must be a pair of integers in \[1, 2\*\*24\), got 1$"),
        (convolved(stride=[1, 1, 1]), r"stride must be a pair of integers .* got \[1, 1, 1\]"),
        (convolved(padding=[-1, 0]), r"padding must be a pair of integers in \[0, 2\*\*24\)"),
        (
            linear(in_features=-3),
            r"linear 'last': in_features must be an integer in \[1, 2\*\*24\), got -3",
        ),
        (linear(in_features=2**24), r"in_features must be an integer .* got 16777216"),
        (linear(in_features=True), r"in_features must be an integer .* got True"),
        (linear(in_features=4.0), r"in_features must be an integer .* got 4\.0"),
        (linear(in_features=[4]), r"in_features must be an integer .* got \[4\]"),
        (linear(more=1), r"expected the settings \['in_features', 'out_features'\]"),
        (linear(bias=1), "linear 'last': bias must be true or false, got 1"),
        (linear(name=3), "linear: name must be a string, got 3"),
        ({"kind": "lstm"}, "unsupported operation: 'lstm'"),
        ({"kind": ["relu"]}, r"unsupported operation: \['relu'\]"),
        ({}, "unsupported operation: None"),
        (3, "a step must be a JSON object, got 3"),
    ],
)
def test_a_step_that_cannot_be_is_refused_for_what_is_wrong_with_it(step, sentence):
    with pytest.raises(ValueError, match=sentence):
        Step.parse(step)


@pytest.mark.parametrize(
    ("steps", "image", "sentence"),
    [
        ([linear()], (1, 2, 2), r"linear 'last': cannot take an input of shape \(1, 2, 2\)"),
        ([convolved()], (2, 5, 5), r"conv2d 'more': cannot take an input of shape \(2, 5, 5\)"),
        (
            [pooled(kernel_size=[3, 3])],
            (1, 2, 2),
            r"max_pool2d: the output for an input of shape \(1, 2, 2\) has shape \(1, 0, 0\), "
            "which is empty",
        ),
        ([convolved(out_channels=2**23)], (1, 2, 2), r"or has 2\*\*24 elements or more"),
    ],
)
def test_steps_that_do_not_follow_each_other_are_refused(steps, image, sentence):
    with pytest.raises(ValueError, match=sentence):
        shapes([Step.parse(step) for step in steps], image)
