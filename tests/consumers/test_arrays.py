"""Rows that are sent to PostgreSQL as arrays."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import BigInteger, Boolean, Column, Connection, Float, LargeBinary, Text

from benchmarks.harness.postgresql import PostgreSQL
from consumers.database.arrays import UnnestStatement
from consumers.database.engine import open_engine

COLUMNS: list[Column[Any]] = [
    Column("a", Text), Column("b", BigInteger), Column("c", Boolean), Column("d", Float), Column("e", LargeBinary)
]  # fmt: skip
ROWS = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")),
    st.integers(-(2**63), 2**63 - 1),
    st.booleans(),
    st.floats(allow_nan=False),
    st.binary(),
)


@pytest.fixture(scope="module")
def connection(postgresql: PostgreSQL) -> Iterator[Connection]:
    engine = open_engine(postgresql.url(), writes=True)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


@pytest.mark.xdist_group("postgresql")
@settings(deadline=None, max_examples=30)
@given(rows=st.lists(ROWS, min_size=1, max_size=6))
def test_rows_are_returned_unchanged_and_in_order(connection: Connection, rows: list[tuple[object, ...]]) -> None:
    found = UnnestStatement("SELECT * FROM {rows}", COLUMNS).run(connection, rows).fetchall()
    assert found == rows
