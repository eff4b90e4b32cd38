"""Choices as text, and registries that say what they accept."""

import pytest

from ppl_vae.components.registry import Choice, Registry


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"hidden": (32, 64), "activation": "relu"},
        {"scale": 0.5, "dense": False, "nothing": None},
        {"word": "true", "number": "1", "comma": "b,c"},
    ],
)
def test_a_choice_is_read_as_it_is_written(options):
    choice = Choice("part", options)
    assert Choice.parse(str(choice)) == choice


@pytest.mark.parametrize("text", ["part:", "part: a = 1 , b = two "])
def test_spaces_say_nothing(text):
    assert Choice.parse(text).options in ({}, {"a": 1, "b": "two"})


def test_what_is_no_option():
    with pytest.raises(ValueError, match="has 'a' where an option should be"):
        Choice.parse("part:a")


def test_a_name_stands_for_one_class_and_has_its_place():
    registry = Registry("shape")
    registry.register("square")(type("Square", (), {}))
    registry.register("circle", before="square")(type("Circle", (), {}))
    assert list(registry) == ["circle", "square"]
    with pytest.raises(ValueError, match="before is 'oval'; accepted are 'circle', 'square'"):
        registry.register("line", before="oval")(type("Line", (), {}))
    with pytest.raises(ValueError, match=r"is .*Square already"):
        registry.register("square")(type("Other", (), {}))


def test_a_part_of_another_package_that_cannot_be_loaded(monkeypatch):
    """It is said, and costs no other part."""

    class Entry:
        name, value = "broken", "elsewhere:Broken"

        def load(self):
            raise ImportError("no module named elsewhere")

    monkeypatch.setattr("ppl_vae.components.registry.entry_points", lambda group: [Entry()])
    registry = Registry("shape")
    registry.register("square")(type("Square", (), {}))
    with pytest.warns(RuntimeWarning, match="shape 'broken' of elsewhere:Broken cannot be loaded"):
        assert list(registry) == ["square"]
