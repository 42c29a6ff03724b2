"""A database of an earlier version is brought up to date with all that is in it."""

from __future__ import annotations

import pytest
from alembic import command
from sqlalchemy import Connection, Engine, create_engine, inspect, text

from billing import schema
from billing.placement import in_schema, placed, placing
from policies import PolicySet
from quota import Comptroller
from quota.stores.opening import open_store

BOOK = (
    "INSERT INTO comptroller_book (id, seq, head, at, zones, rates)"
    " VALUES (1, 1, :octets, :at, '[]', '{}')"
)
RECORD = (
    "INSERT INTO comptroller_record (book_id, seq, kind, at, recorded_at, body, prev_hash, hash)"
    " VALUES (1, 1, 'purchase', :at, :at, :octets, :octets, :octets)"
)
LOT = (
    "INSERT INTO comptroller_lot (book_id, number, seq, origin, reference, units, price_minor,"
    " currency, priority, created_at) VALUES (1, 1, 1, 'purchase', 'o-1', 10, 400, 'usd', 0, :at)"
)
BALANCE = (
    "INSERT INTO comptroller_lot_balance (book_id, lot_no, units_in, units_used, units_gone,"
    " units_held, money_in_minor, money_out_minor, open) VALUES (1, 1, 10, 3, 2, 1, 400, 200, 1)"
)
LINE = (
    "INSERT INTO comptroller_line (book_id, seq, idx, kind, at, plan, operation, member, source,"
    " units, lot_units, spend_minor, sold_minor, revenue_minor, breakage_minor, refunded_minor,"
    " gpu_estimated_micro_usd, gpu_micro_usd, gpu_unreported_micro_usd)"
    " VALUES (1, 1, 0, 'purchase', :at, '', '', '', '', 0, 10, 0, 400, 0, 0, 7, 0, 0, 0)"
)
ASSET = "INSERT INTO comptroller_asset (code, scale) VALUES ('usd', 2)"
ACCOUNTS = (
    "INSERT INTO comptroller_ledger_account (book_id, id, asset) VALUES (1, 'lot:1', 'CREDIT'),"
    " (1, 'revoked', 'CREDIT'), (1, 'expired', 'CREDIT'), (1, 'deferred:1', 'usd'),"
    " (1, 'refunded:usd', 'usd'), (1, 'breakage:usd', 'usd')"
)
TRANSFERS = (
    "INSERT INTO comptroller_transfer (book_id, seq, idx, debit, credit, asset, amount, phase)"
    " VALUES (1, 1, 0, 'lot:1', 'revoked', 'CREDIT', 1, 0),"
    " (1, 1, 1, 'lot:1', 'expired', 'CREDIT', 1, 0),"
    " (1, 1, 2, 'deferred:1', 'refunded:usd', 'usd', 40, 0),"
    " (1, 1, 3, 'deferred:1', 'breakage:usd', 'usd', 40, 0)"
)


@pytest.fixture(params=["sqlite", "postgresql"])
def engine(request, tmp_path):
    if request.param == "sqlite":
        engine = create_engine(f"sqlite:///{tmp_path}/books.db")
    else:
        url = request.getfixturevalue("database_url")  # a database of one's own, without our tables
        engine = create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    yield engine
    engine.dispose()


def upgraded_to(connection: Connection, version: str) -> None:
    with placing(connection):
        command.upgrade(schema._config(connection), version)


def names(engine: Engine) -> set[tuple[str, str]]:
    """The names of all indexes and triggers."""
    found: set[tuple[str, str]] = set()
    with engine.connect() as connection:
        if engine.dialect.name == "sqlite":
            rows = connection.execute(text("SELECT type, name FROM sqlite_master")).all()
            return {(kind, name) for kind, name in rows if kind in ("index", "trigger")}
        inspector = inspect(connection)
        for table in inspector.get_table_names(schema="comptroller"):
            found |= {
                ("index", str(index["name"]))
                for index in inspector.get_indexes(table, schema="comptroller")
            }
        triggers = connection.execute(text("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal"))
        return found | {("trigger", name) for (name,) in triggers}


def test_upgrading_keeps_what_is_there_and_guards_it_as_before(engine):
    with engine.begin() as connection:
        if in_schema(connection.dialect):
            connection.execute(text("CREATE SCHEMA comptroller"))
        upgraded_to(connection, "0003")
        at = text("SELECT now()") if in_schema(connection.dialect) else text("SELECT 1")
        values = {"at": connection.execute(at).scalar(), "octets": b"x"}
        for statement in (BOOK, RECORD, ASSET, ACCOUNTS, LOT, BALANCE, LINE, TRANSFERS):
            connection.execute(text(placed(statement, connection.dialect)), values)
    guarded = names(engine)
    with engine.begin() as connection:
        upgraded_to(connection, "head")
    assert guarded <= names(engine)
    with engine.connect() as connection:

        def row(statement: str) -> tuple[object, ...]:
            (found,) = connection.execute(text(placed(statement, connection.dialect))).all()
            return tuple(found)

        line = "SELECT sold_minor, refunded_minor, returned_minor, fee_minor FROM comptroller_line"
        assert row(line) == (400, 7, 0, 0)
        assert row(
            "SELECT units_in, units_used, units_gone, units_held, units_revoked, units_suspended,"
            " money_revoked_minor, returned_minor, disputed FROM comptroller_lot_balance"
        ) == (10, 3, 2, 1, 1, 0, 40, 0, 0), "what was revoked before is known from the transfers"
        assert row("SELECT seq, disputes FROM comptroller_book") == (1, 0)
        change = text(placed("UPDATE comptroller_line SET sold_minor = 0", connection.dialect))
        with pytest.raises(Exception, match="append-only"):
            connection.execute(change)


def test_an_upgraded_database_is_as_one_that_is_new(engine, tmp_path):
    with engine.begin() as connection:
        if in_schema(connection.dialect):
            connection.execute(text("CREATE SCHEMA comptroller"))
        upgraded_to(connection, "0002")
        upgraded_to(connection, "head")
    store = open_store(engine)
    try:
        store.migrate("check")
    finally:
        store.close()
    with Comptroller.open(PolicySet.unlimited(), engine) as comptroller:
        assert comptroller.verify() == []
    if engine.dialect.name == "sqlite":
        fresh = create_engine(f"sqlite:///{tmp_path}/new.db")
        with fresh.begin() as connection:
            schema.upgrade(connection)
        assert names(fresh) == names(engine)
        fresh.dispose()
