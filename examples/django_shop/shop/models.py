"""What the shop keeps."""

from django.db import models


class Order(models.Model):
    number = models.IntegerField(primary_key=True)
    receipt = models.TextField(default="")
    mailed = models.BooleanField(default=False)
