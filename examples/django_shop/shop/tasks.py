"""The tasks of the shop, in Django's own words."""

try:
    from django.tasks import task
except ImportError:
    from django_tasks import task

from .models import Order


@task(queue_name="mail")
def mail(number: int) -> None:
    Order.objects.filter(pk=number).update(mailed=True)


@task
def refuse(number: int) -> None:
    raise ValueError(f"order {number} is refused")
