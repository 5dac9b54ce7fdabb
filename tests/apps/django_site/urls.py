"""Where everything is."""

from django.contrib import admin
from django.urls import path

from django_site.shop import views

urlpatterns = [
    path("admin/", admin.site.urls),
    path("sync/", views.sync_view),
    path("async/", views.async_view),
    path("items/", views.items, name="items"),
    path("items/async/", views.async_items),
    path("items/<int:number>/", views.item),
    path("transaction/", views.transaction_view),
    path("session/", views.session),
    path("session/async/", views.async_session),
    path("stream/", views.stream),
    path("stream/async/", views.async_stream),
    path("stream/closes/", views.stream_closes),
    path("stream/async/closes/", views.async_stream_closes),
    path("upload/", views.upload),
    path("echo/", views.echo),
    path("json/", views.json_view),
    path("form/", views.form),
    path("file/", views.file),
    path("redirect/", views.redirect_view),
    path("raises/", views.raises),
    path("raises/async/", views.async_raises),
    path("mixed/", views.mixed),
    path("url/<path:rest>", views.url),
    path("class/", views.View.as_view()),
    path("class/async/", views.AsyncView.as_view()),
    path("collect/", views.collect),
    path("disconnect/", views.disconnect),
]
