"""What the shop answers."""

from django.db import IntegrityError, transaction
from django.forms import model_to_dict
from django.http import HttpRequest, JsonResponse
from django.shortcuts import get_object_or_404
from django.urls import path
from django.views.decorators.csrf import csrf_exempt

from forge_jobs import EnqueueRequest
from forge_jobs.integrations.django import enqueue, queue

from .models import Order
from .tasks import mail, refuse


@csrf_exempt
def order(request: HttpRequest, number: int) -> JsonResponse:
    """Take an order, or show it. Order, job and task are there together, or none of them."""
    if request.method != "POST":
        return JsonResponse(model_to_dict(get_object_or_404(Order, pk=number)))
    try:
        with transaction.atomic():
            job = enqueue(EnqueueRequest("receipt_write", {"order": number}), wake=queue().wake)
            task = mail.enqueue(number)
            Order.objects.create(number=number)
    except IntegrityError:  # it was taken before; the job and the task of this request are gone with its transaction
        return JsonResponse({"error": f"order {number} is there already"}, status=409)
    return JsonResponse({"job": job.id, "task": task.id}, status=202)


@csrf_exempt
def refused(request: HttpRequest, number: int) -> JsonResponse:
    return JsonResponse({"job": refuse.enqueue(number).id}, status=202)


def task(request: HttpRequest, task_id: str) -> JsonResponse:
    """What became of a task."""
    found = refuse.get_backend().get_result(task_id)
    errors = [error.exception_class_path for error in found.errors]
    return JsonResponse({"status": found.status, "attempts": found.attempts, "errors": errors})


urlpatterns = [
    path("orders/<int:number>", order),
    path("refused/<int:number>", refused),
    path("tasks/<str:task_id>", task),
]
