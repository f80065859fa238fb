"""config.py: every option is converted and checked by its type, and a slip is answered with what would be right."""

import dataclasses

import pytest

import config
from config import DefaultConfig, PoetConfig, task_config
from options import Options, parse
from utils.errors import UserError

ALL = (DefaultConfig, *DefaultConfig.__subclasses__(), *Options.__subclasses__()[1:])


@pytest.mark.parametrize(
    "name, written, meant",
    [
        ("use_gpu", "false", False),
        ("use_gpu", "0", False),
        ("use_gpu", "no", False),
        ("use_gpu", "true", True),
        ("use_gpu", True, True),
        ("lr", "1e-3", 1e-3),
        ("lr", 1, 1.0),
        ("max_epoch", "3.0", 3),
        ("max_epoch", "1e2", 100),
        ("max_epoch", 7, 7),
        ("seed", str(2**31 - 1), 2**31 - 1),
        ("env", "12_34", "12_34"),
        ("env", "False", "False"),
        ("env", 1234, "1234"),
        ("env", "", ""),
        ("data_root", ("a", "b"), "a,b"),  # what Fire makes of a,b when it guesses
    ],
)
def test_a_value_gets_the_options_type(name, written, meant):
    value = getattr(parse(PoetConfig, {name: written}), name)
    assert value == meant and type(value) is type(meant)


@pytest.mark.parametrize("name", ["nouse_gpu", "no_use_gpu"])
def test_a_switch_is_turned_off_by_no(name):
    assert parse(PoetConfig, {name: True}).use_gpu is False
    with pytest.raises(UserError, match=f"unknown option --{name}; did you mean --use_gpu?"):
        parse(PoetConfig, {name: "3"})


@pytest.mark.parametrize(
    "overrides, words",
    [
        ({"lrr": "1"}, ["--lrr", "did you mean --lr?"]),
        ({"nope": True}, ["--nope", "help"]),
        ({"nolr": True}, ["--nolr", "--lr"]),
        ({"lr": "abc"}, ["lr=abc", "a number", "lr=0.005"]),
        ({"lr": True}, ["lr: needs a value", "lr=0.005"]),
        ({"lr": "nan"}, ["lr=nan", "at least 0"]),
        ({"lr": "inf"}, ["lr=inf", "at most"]),
        ({"lr": "-1"}, ["lr=-1", "at least 0"]),
        ({"lr": ("1", "2")}, ["lr=", "a number"]),
        ({"lr": None}, ["lr: expected", "a number"]),
        ({"max_epoch": "1.5"}, ["max_epoch=1.5", "a whole number"]),
        ({"max_epoch": "1e400"}, ["max_epoch=1e400", "a whole number"]),
        ({"num_workers": "9" * 20}, ["num_workers=", "at most"]),
        ({"vis_port": "65536"}, ["vis_port=65536", "at most 65535"]),
        ({"use_gpu": "maybe"}, ["use_gpu=maybe", "true or false"]),
        ({"env": True}, ["env: needs a value", "a text"]),
        ({"precision": "fp23"}, ["precision=fp23", "auto, fp32, bf16", "did you mean fp32?"]),
    ],
)
def test_a_slip_is_answered_in_one_line_with_what_would_be_right(overrides, words):
    with pytest.raises(UserError) as error:
        parse(PoetConfig, overrides)
    assert "\n" not in str(error.value) and all(word in str(error.value) for word in words), str(error.value)


@pytest.mark.parametrize("name", ["poe", "", "stlye"])
def test_an_unknown_task_names_the_tasks(name):
    with pytest.raises(UserError, match="^task=.*choose one of poet"):
        task_config({"task": name})


def test_the_task_chooses_the_options():
    assert type(task_config({})) is PoetConfig
    assert task_config({"task": "poet", "hidden": "8"}).hidden == 8
    assert all(name in DefaultConfig.__dataclass_fields__["task"].metadata["help"] for name in config.TASKS)


@pytest.mark.parametrize("cls", ALL)
def test_every_option_has_a_meaning_and_a_default_that_is_accepted(cls):
    for field in dataclasses.fields(cls):
        assert field.metadata["help"] and "\n" not in field.metadata["help"], field.name
        assert type(field.default) is field.type, field.name
        assert parse(cls, {field.name: str(field.default)}) == cls(), field.name


def test_a_config_survives_being_stored_and_says_what_was_changed():
    cfg = parse(PoetConfig, {"lr": "1e-3", "env": "a_b", "nouse_gpu": True})
    assert parse(PoetConfig, cfg.as_dict()) == cfg
    assert cfg.changed() == {"lr": 0.001, "use_gpu": False, "env": "a_b"}
    assert (str(cfg), str(PoetConfig())) == ("lr=0.001, use_gpu=False, env=a_b", "defaults")


def test_no_option_can_be_changed_behind_the_back():
    with pytest.raises(dataclasses.FrozenInstanceError):
        PoetConfig().lr = 1.0
