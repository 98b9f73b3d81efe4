"""FastAPI with non-blocking drivers, and a pool of connections in each process."""

import os
from contextlib import asynccontextmanager
from urllib.parse import unquote, urlsplit

from fastapi import FastAPI, Request
from pydantic import BaseModel

URL = urlsplit(os.environ["DATABASE_URL"])
CONNECTIONS = int(os.environ["CONNECTIONS"])
SELECT = "SELECT id, username, email FROM users WHERE id > {} ORDER BY id LIMIT {}"


class User(BaseModel):
    id: int
    username: str
    email: str


@asynccontextmanager
async def postgres():
    import asyncpg

    async def keep(connection):
        """Does nothing. By default, asyncpg resets each connection by a query, which no other contender does."""

    select = SELECT.format("$1", "$2")
    async with asyncpg.create_pool(URL.geturl(), min_size=CONNECTIONS, max_size=CONNECTIONS, reset=keep) as pool:
        yield lambda *arguments: pool.fetch(select, *arguments)


@asynccontextmanager
async def mysql():
    import asyncmy
    from asyncmy.cursors import DictCursor

    select = SELECT.format("%s", "%s")
    async with asyncmy.create_pool(
        host=URL.hostname, port=URL.port, user=URL.username, db=URL.path[1:], autocommit=True,
        minsize=CONNECTIONS, maxsize=CONNECTIONS,
    ) as pool:

        async def fetch(*arguments):
            async with pool.acquire() as connection, connection.cursor(DictCursor) as cursor:
                await cursor.execute(select, arguments)
                return await cursor.fetchall()

        yield fetch


@asynccontextmanager
async def sqlite():
    import aiosqlite

    select = SELECT.format("?", "?")
    # One connection: each one is a thread, and only one thread at a time runs Python.
    async with aiosqlite.connect(unquote(URL.path), isolation_level=None) as connection:
        connection.row_factory = aiosqlite.Row
        yield lambda *arguments: connection.execute_fetchall(select, arguments)


@asynccontextmanager
async def lifespan(_):
    engines = {"postgres": postgres, "mysql": mysql, "sqlite": sqlite}
    async with engines[URL.scheme]() as fetch:
        yield {"fetch": fetch}


app = FastAPI(lifespan=lifespan)


@app.get("/users")
async def users(request: Request, after: int = 0, limit: int = 100) -> list[User]:
    return [User(**row) for row in await request.state.fetch(after, limit)]
