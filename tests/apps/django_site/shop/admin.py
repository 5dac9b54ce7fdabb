"""What the admin shows."""

from django.contrib import admin

from django_site.shop.models import Item, Kind


@admin.register(Item)
class ItemAdmin(admin.ModelAdmin):
    list_display = ["name", "kind", "count"]
    list_filter = ["kind"]
    search_fields = ["name"]


admin.site.register(Kind)
