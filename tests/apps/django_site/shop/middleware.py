"""One middleware that is only sync, so that Django has to adapt, and one that is both."""

from asgiref.sync import iscoroutinefunction
from django.utils.decorators import sync_and_async_middleware


class SyncMiddleware:
    def __init__(self, get_response) -> None:
        self.get_response = get_response

    def __call__(self, request):
        response = self.get_response(request)
        response["x-sync-middleware"] = "seen"
        return response


@sync_and_async_middleware
def async_capable(get_response):
    if iscoroutinefunction(get_response):

        async def middleware(request):
            response = await get_response(request)
            response["x-middleware"] = "async"
            return response

    else:

        def middleware(request):
            response = get_response(request)
            response["x-middleware"] = "sync"
            return response

    return middleware
