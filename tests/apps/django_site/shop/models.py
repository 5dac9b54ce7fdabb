"""Two models with a relation."""

from django.db import models


class Kind(models.Model):
    name = models.CharField(max_length=50, unique=True)

    def __str__(self) -> str:
        return self.name


class Item(models.Model):
    name = models.CharField(max_length=50)
    count = models.IntegerField(default=0)
    kind = models.ForeignKey(Kind, on_delete=models.CASCADE, related_name="items")

    def __str__(self) -> str:
        return self.name
