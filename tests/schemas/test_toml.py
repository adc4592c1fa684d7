"""TOML of unknown origin: parsed in bounded time, or rejected."""

from __future__ import annotations

import pytest

from schemas.toml import parse_toml

DEEP = ".a" * 17


@pytest.mark.parametrize(
    "text",
    [
        f"a{DEEP} = 1", f"[a{DEEP}]", f"x = {{a{DEEP} = 1}}", "a" + " . a" * 17 + " = 1", 'a."b,"' + "."'"c=]"' * 17,
        f'x = [""" """", {{a{DEEP} = 1, b = "q"}}]', f"x = [''' '''', {{a{DEEP} = 1, b = 'q'}}]",
        f'x = "\\\\"\na{DEEP} = "1"', f'x = 1 # "\na{DEEP} = 1 # "', f'x = """\\""""\na{DEEP} = """b"""',
    ],
)  # fmt: skip
def test_a_key_with_many_dots_is_rejected_in_every_position(text: str) -> None:
    with pytest.raises(ValueError, match=r"a key with 1[78] dots instead of at most 16"):
        parse_toml(text)


@pytest.mark.parametrize("text", ["x = " + "[" * 65 + "]" * 65, "x = " + "{a = " * 65 + "1" + "}" * 65])
def test_deeply_nested_values_are_rejected(text: str) -> None:
    with pytest.raises(ValueError, match="values of 65 levels instead of at most 64"):
        parse_toml(text)


def test_dots_and_brackets_in_strings_comments_and_numbers_do_not_count() -> None:
    text = "." * 100 + "[" * 100
    lines = [
        f'a.b.c = "{text}"  # {text}', "d = [" + "0.5, " * 100 + "]", "e = [" + '"a.b", ' * 100 + "]",
        f'f = """{text}\n"{text}""""', f'"g{text}".h = 1',
    ]  # fmt: skip
    assert parse_toml("\n".join(lines)) == {
        "a": {"b": {"c": text}}, "d": [0.5] * 100, "e": ["a.b"] * 100, "f": f'{text}\n"{text}"', f"g{text}": {"h": 1},
    }  # fmt: skip
