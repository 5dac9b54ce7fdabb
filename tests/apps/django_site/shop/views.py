"""Views: sync and async, with the database, sessions, streams and uploads."""

import asyncio
import gc
import hashlib
import json
import threading

from asgiref.sync import async_to_sync, sync_to_async
from django import views
from django.contrib.auth.decorators import login_required
from django.db import transaction
from django.db.models import F, Sum
from django.http import (
    FileResponse,
    HttpResponse,
    HttpResponseRedirect,
    JsonResponse,
    StreamingHttpResponse,
)
from django.middleware.csrf import get_token
from django.shortcuts import aget_object_or_404, get_object_or_404
from django.template import engines
from django.urls import reverse
from django.views.decorators.csrf import csrf_exempt
from support import ExpectedError, record

from django_site import settings
from django_site.shop.models import Item, Kind


def sync_view(request):
    return JsonResponse({"view": "sync", "get": request.GET.dict()})


async def async_view(request):
    await asyncio.sleep(0.001)
    return JsonResponse({"view": "async", "task": asyncio.current_task() is not None})


@csrf_exempt
def items(request):
    if request.method == "POST":
        kind, _ = Kind.objects.get_or_create(name=request.POST["kind"])
        made = Item.objects.create(name=request.POST["name"], kind=kind)
        return JsonResponse({"id": made.pk}, status=201)
    found = Item.objects.select_related("kind").filter(kind__name=request.GET["kind"])
    return JsonResponse({"items": sorted(item.name for item in found)})


@csrf_exempt
async def async_items(request):
    if request.method == "POST":
        kind, _ = await Kind.objects.aget_or_create(name=request.POST["kind"])
        made = await Item.objects.acreate(name=request.POST["name"], kind=kind)
        return JsonResponse({"id": made.pk}, status=201)
    names = [item.name async for item in Item.objects.filter(kind__name=request.GET["kind"])]
    total = await Item.objects.aaggregate(total=Sum("count"))
    return JsonResponse({"items": sorted(names), "total": total["total"] is not None})


@csrf_exempt
async def item(request, number):
    if request.method == "DELETE":
        await Item.objects.filter(pk=number).adelete()
        return HttpResponse(status=204)
    if request.method == "PATCH":
        await Item.objects.filter(pk=number).aupdate(count=F("count") + 1)
    found = await aget_object_or_404(Item.objects.select_related("kind"), pk=number)
    return JsonResponse({"name": found.name, "count": found.count, "kind": found.kind.name})


@csrf_exempt
def transaction_view(request):
    """A failure inside the block takes everything back."""
    name = request.GET["name"]
    try:
        with transaction.atomic():
            Kind.objects.create(name=name)
            raise ExpectedError("rolled back")
    except ExpectedError:
        pass
    return JsonResponse({"exists": Kind.objects.filter(name=name).exists()})


def session(request):
    request.session["count"] = request.session.get("count", 0) + 1
    return JsonResponse({"count": request.session["count"]})


async def async_session(request):
    count = await request.session.aget("count", 0) + 1
    await request.session.aset("count", count)
    return JsonResponse({"count": count})


def stream(request):
    return StreamingHttpResponse(f"line {number}\n" for number in range(30))


async def async_stream(request):
    async def parts():
        for number in range(30):
            yield f"line {number}\n"
            await asyncio.sleep(0)

    return StreamingHttpResponse(parts())


def stream_closes(request):
    def parts():
        record("stream began")
        try:
            for _ in range(300):
                yield b"x" * 100_000
        finally:
            record("stream closed")

    return StreamingHttpResponse(parts())


async def async_stream_closes(request):
    async def parts():
        record("async stream began")
        try:
            while True:
                yield b"x" * 100_000
                await asyncio.sleep(0)
        finally:
            record("async stream closed")

    return StreamingHttpResponse(parts())


@csrf_exempt
def upload(request):
    found = request.POST.dict()
    for name, file in request.FILES.items():
        sha = hashlib.sha256()
        for part in file.chunks():
            sha.update(part)
        found[name] = {"name": file.name, "size": file.size, "sha256": sha.hexdigest()}
        found[name]["kind"] = type(file).__name__
    return JsonResponse(found)


@csrf_exempt
def echo(request):
    return HttpResponse(request.body, content_type=request.content_type)


@csrf_exempt
async def json_view(request):
    return JsonResponse(json.loads(request.body), safe=False)


def form(request):
    if request.method == "POST":
        return HttpResponse(f"posted {request.POST['text']}")
    get_token(request)
    template = engines["django"].from_string("<form>{% csrf_token %}{{ text }}</form>")
    return HttpResponse(template.render({"text": request.GET.get("text", "")}, request))


def file(request):
    path = settings.DIRECTORY / "large.bin"
    return FileResponse(path.open("rb"), as_attachment=True, filename="große datei.bin")


def redirect_view(request):
    return HttpResponseRedirect(request.build_absolute_uri(reverse("items") + "?kind=tools"))


def raises(request):
    raise ExpectedError("view")


async def async_raises(request):
    await asyncio.sleep(0)
    raise ExpectedError("async view")


async def mixed(request):
    """Sync code that calls async code that calls sync code."""

    def innermost():
        return Kind.objects.filter(name="tools").count(), threading.get_ident()

    async def inner():
        return await sync_to_async(innermost)()

    count, thread = await sync_to_async(async_to_sync(inner))()
    return JsonResponse({"count": count, "other_thread": thread != threading.get_ident()})


def url(request, rest):
    return JsonResponse(
        {
            "rest": rest,
            "url": request.build_absolute_uri(),
            "host": request.get_host(),
            "remote": request.META["REMOTE_ADDR"],
            "port": request.get_port(),
            "header": request.headers.get("x-one"),
        }
    )


class View(views.View):
    def get(self, request):
        found = get_object_or_404(Kind, name="tools")
        return HttpResponse(found.name)

    @login_required
    def post(self, request):
        return HttpResponse("never")


class AsyncView(views.View):
    async def get(self, request):
        found = await aget_object_or_404(Kind, name="tools")
        return HttpResponse(found.name)


def collect(request):
    return HttpResponse(str(gc.collect()))


async def disconnect(request):
    """Django cancels a view whose client goes, where the server tells it."""
    record("view began")
    try:
        await asyncio.sleep(30)
    except asyncio.CancelledError:
        record("view cancelled")
        raise
    return HttpResponse("nobody reads this")
