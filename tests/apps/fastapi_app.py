"""A FastAPI application: models, dependencies, validation, documents, streams, uploads."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import (
    APIRouter,
    BackgroundTasks,
    Body,
    Cookie,
    Depends,
    FastAPI,
    File,
    Form,
    Header,
    HTTPException,
    Path,
    Query,
    Request,
    Response,
    UploadFile,
)
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBasic, HTTPBasicCredentials
from pydantic import BaseModel, Field
from support import ExpectedError, record


class Item(BaseModel):
    name: str = Field(min_length=1, max_length=20)
    price: float = Field(gt=0)
    tags: list[str] = []


class Stored(Item):
    id: int


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, Any]]:
    yield {"loop": asyncio.get_running_loop()}


app = FastAPI(title="An application under test", lifespan=lifespan)
router = APIRouter(prefix="/items", tags=["items"])


def sync_dependency(token: Annotated[str, Header(alias="x-token")] = "none") -> str:
    assert threading.current_thread() is not threading.main_thread()
    return token


async def yielding_dependency() -> AsyncIterator[str]:
    record("dependency opened")
    try:
        yield "resource"
    finally:
        record("dependency closed")


def sync_yielding_dependency() -> Iterator[str]:
    record("sync dependency opened")
    yield "sync resource"
    record("sync dependency closed")


async def pagination(skip: int = 0, limit: Annotated[int, Query(le=50)] = 10) -> dict[str, int]:
    return {"skip": skip, "limit": limit}


@router.get("/{number}")
async def read_item(
    number: Annotated[int, Path(ge=1)],
    q: str | None = None,
    flag: bool = False,
) -> dict[str, Any]:
    return {"number": number, "q": q, "flag": flag}


@router.post("", status_code=201, response_model=Stored)
async def create_item(item: Item) -> dict[str, Any]:
    return {**item.model_dump(), "id": 7, "secret": "left out by the response model"}


@router.put("/{number}")
def update_item(number: int, item: Item, important: Annotated[bool, Body()]) -> dict[str, Any]:
    return {"number": number, "item": item.model_dump(), "important": important}


@router.delete("/{number}", status_code=204)
async def delete_item(number: int) -> None:
    if number > 100:
        raise HTTPException(404, "no such item", headers={"x-reason": "too large"})


@app.get("/depends")
async def depends(
    token: Annotated[str, Depends(sync_dependency)],
    resource: Annotated[str, Depends(yielding_dependency)],
    sync_resource: Annotated[str, Depends(sync_yielding_dependency)],
    page: Annotated[dict[str, int], Depends(pagination)],
) -> dict[str, Any]:
    return {"token": token, "resource": resource, "sync": sync_resource, "page": page}


@app.get("/depends/raises")
async def depends_raises(resource: Annotated[str, Depends(yielding_dependency)]) -> None:
    raise ExpectedError(f"with {resource}")


@app.get("/sync")
def sync_endpoint() -> dict[str, bool]:
    return {"main_thread": threading.current_thread() is threading.main_thread()}


@app.get("/cookie")
async def cookie(response: Response, visits: Annotated[int, Cookie()] = 0) -> dict[str, int]:
    response.set_cookie("visits", str(visits + 1))
    return {"visits": visits}


@app.post("/upload")
async def upload(
    one: UploadFile, many: Annotated[list[UploadFile], File()], note: Annotated[str, Form()]
) -> dict[str, Any]:
    sizes = [len(await part.read()) for part in many]
    return {"one": one.filename, "size": len(await one.read()), "sizes": sizes, "note": note}


@app.post("/upload/bytes")
def upload_bytes(data: Annotated[bytes, File()]) -> int:
    return len(data)


@app.get("/stream")
async def stream() -> StreamingResponse:
    async def parts() -> AsyncIterator[str]:
        for number in range(30):
            yield f"data: {number}\n\n"
            await asyncio.sleep(0)

    return StreamingResponse(parts(), media_type="text/event-stream")


@app.get("/background")
async def background(tasks: BackgroundTasks, name: str) -> dict[str, str]:
    tasks.add_task(record, f"background {name}")
    return {"name": name}


@app.get("/private")
def private(who: Annotated[HTTPBasicCredentials, Depends(HTTPBasic())]) -> dict[str, str]:
    if (who.username, who.password) != ("ann", "secret"):
        raise HTTPException(401, headers={"www-authenticate": "Basic"})
    return {"hello": who.username}


@app.get("/loop")
async def same_loop(request: Request) -> bool:
    return bool(request.state.loop is asyncio.get_running_loop())


@app.get("/raises")
async def raises() -> None:
    raise ExpectedError("endpoint")


class CustomError(Exception):
    pass


@app.get("/raises/custom")
async def raises_custom() -> None:
    raise CustomError


@app.exception_handler(CustomError)
async def on_custom(request: Request, exc: CustomError) -> JSONResponse:
    return JSONResponse({"custom": True}, status_code=422)


@app.middleware("http")
async def add_header(request: Request, call_next: Any) -> Response:
    response: Response = await call_next(request)
    response.headers["x-middleware"] = "seen"
    return response


app.include_router(router)
