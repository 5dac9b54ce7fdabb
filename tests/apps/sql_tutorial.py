"""FastAPI's tutorial on SQL: an engine of the module, and tables that are made at import."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import Depends, FastAPI
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column
from support import record

record("import")


class Base(DeclarativeBase):
    pass


class Hero(Base):
    __tablename__ = "hero"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


engine = sa.create_engine(os.environ["TEST_DATABASE"], pool_size=4)
Base.metadata.drop_all(engine)
Base.metadata.create_all(engine)
with Session(engine) as first:
    first.add_all(Hero(id=number, name=f"hero {number}") for number in range(300))
    first.commit()
if os.environ.get("TEST_HELD"):
    held = engine.connect()
    held.execute(sa.text("select 1"))
    held.commit()


def get_session() -> Iterator[Session]:
    with Session(engine) as session:
        yield session


app = FastAPI()


@app.get("/heroes/{number}")
def hero(number: int, session: Annotated[Session, Depends(get_session)]) -> dict[str, Any]:
    found = session.get(Hero, number)
    assert found is not None
    return {"number": found.id, "name": found.name, "pid": os.getpid()}
