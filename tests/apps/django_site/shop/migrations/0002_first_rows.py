"""Rows that the tests expect, and a user for the admin."""

from django.contrib.auth.hashers import make_password
from django.db import migrations


def fill(apps, editor) -> None:
    kind = apps.get_model("shop", "Kind").objects.create(name="tools")
    for name in ("hammer", "saw", "große Zange"):
        apps.get_model("shop", "Item").objects.create(name=name, kind=kind)
    apps.get_model("auth", "User").objects.create(
        username="admin",
        password=make_password("secret"),
        is_staff=True,
        is_superuser=True,
    )


class Migration(migrations.Migration):
    dependencies = [
        ("shop", "0001_initial"),
        ("auth", "0012_alter_user_first_name_max_length"),
    ]
    operations = [migrations.RunPython(fill)]
