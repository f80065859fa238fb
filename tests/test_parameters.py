"""Freezing, learning rates by name, weight decay, the moving average: against values by hand."""

import pytest
import torch
from torch import nn

from training.parameters import MovingAverage, freeze, parameter_groups, train_mode
from utils.errors import UserError


def network() -> nn.Module:
    return nn.ModuleDict(
        {"features": nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), "classifier": nn.Linear(4, 2)}
    )


def learning(model: nn.Module) -> set[str]:
    return {name for name, p in model.named_parameters() if p.requires_grad}


@pytest.mark.parametrize(
    "patterns, left",
    [
        ("", {"features.0.weight", "features.0.bias", "features.1.weight", "features.1.bias"}),
        ("features.*", set()),
        ("features.1.*,*.bias", {"features.0.weight"}),
    ],
)
def test_freeze_by_name(patterns, left):
    model = network()
    freeze(model, "features.0.*")  # what was frozen before does not count
    freeze(model, patterns)
    rest = {"classifier.weight"} | (set() if "bias" in patterns else {"classifier.bias"})
    assert learning(model) == left | rest


def test_what_is_frozen_stays_in_eval_mode():
    """BatchNorm's running statistics do not move; a layer that still learns in part is in train mode."""
    model = network()
    freeze(model, "features.*")
    train_mode(model)
    assert model.training and model["classifier"].training and not model["features"][1].training
    before = model["features"][1].running_mean.clone()
    model["features"](torch.randn(2, 3, 8, 8))
    assert torch.equal(model["features"][1].running_mean, before)
    freeze(model, "features.0.weight")
    train_mode(model)
    assert model["features"][0].training and model["features"][1].training


@pytest.mark.parametrize(
    "call, line",
    [
        (lambda m: freeze(m, "feature.*"), "freeze=feature.*: fits no parameter; they begin with features, classifier"),
        (lambda m: freeze(m, "*"), "freeze=*: leaves nothing to train"),
        (lambda m: parameter_groups(m, 0, "features.*"), "lr_scale=features.*: expected NAME:NUMBER, such as lr_"),
        (lambda m: parameter_groups(m, 0, "features.*:-1"), "lr_scale=features.*:-1: expected NAME:NUMBER"),
        (lambda m: parameter_groups(m, 0, "head:2"), "lr_scale=head: fits no parameter"),
    ],
)
def test_mistakes(call, line):
    with pytest.raises(UserError) as error:
        call(network())
    assert str(error.value).startswith(line) and "\n" not in str(error.value)


def test_groups_hold_every_parameter_once():
    model = network()
    groups = parameter_groups(model, 0.1, "features.0.*:0.5,features.*:0.01")
    names = {id(p): name for name, p in model.named_parameters()}
    found = {names[id(p)]: (g["weight_decay"], g["lr_scale"]) for g in groups for p in g["params"]}
    assert sum(len(g["params"]) for g in groups) == len(names)
    assert found == {
        "features.0.weight": (0.1, 0.5),
        "features.0.bias": (0, 0.5),
        "features.1.weight": (0, 0.01),  # a normalisation's
        "features.1.bias": (0, 0.01),
        "classifier.weight": (0.1, 1),
        "classifier.bias": (0, 1),
    }


def test_moving_average_keeps_to_its_decay_and_takes_buffers_along():
    model = nn.BatchNorm1d(2)
    average = MovingAverage(model, 0.9)
    model.weight.data.fill_(3.0)
    model(torch.randn(8, 2))
    average.update(1000)
    assert average.state_dict()["weight"].tolist() == pytest.approx([1.2, 1.2])  # 0.9 * 1 + 0.1 * 3
    assert average.state_dict()["num_batches_tracked"] == 1
    assert average.state_dict()["running_mean"].tolist() == pytest.approx((0.1 * model.running_mean).tolist())


def test_moving_average_syncs_resets():
    model = nn.BatchNorm1d(3)
    average = MovingAverage(model, 0.9)
    with torch.no_grad():
        model.weight.fill_(3.0)
        average.update(1000)  # 1.2
        with average.sync_resets():
            model.weight[1] = 7.0
            model.num_batches_tracked.fill_(5)
    assert average.state_dict()["weight"].tolist() == pytest.approx([1.2, 7.0, 1.2])
    assert average.state_dict()["num_batches_tracked"].item() == 5


def test_the_own_weights_come_back_after_an_error():
    model = nn.Linear(1, 1)
    average = MovingAverage(model, 0.9)
    model.weight.data.fill_(7.0)
    with pytest.raises(KeyboardInterrupt), average.applied():
        assert model.weight.item() != 7.0
        raise KeyboardInterrupt
    assert model.weight.item() == 7.0
