"""Django: the spans of its statements, by the driver or in its stead."""

import json
from collections.abc import Callable

from support.otlp import children

from .conftest import Program
from .django_program import APP, servers

Run = Callable[..., Program]


MODELS = (
    APP
    + """
from django.db import models
class Item(models.Model):
    name = models.CharField(max_length=9)
    class Meta: app_label = "shop"
with connection.schema_editor() as editor: editor.create_model(Item)
def listed(request):
    Item.objects.create(name="a")
    Item.objects.bulk_create([Item(name="b"), Item(name="c")])
    return HttpResponse(",".join(item.name for item in Item.objects.order_by("name")))
url("items", listed)
"""
)


def test_each_query_of_the_orm_is_one_span_of_its_driver(program: Run) -> None:
    code = MODELS + 'show(call("/items"))\n'
    result = program(code)
    assert result.shown == [[200, "a,b,c"]]
    [span] = servers(result)
    inside = children(result.spans, span)
    assert {child.scope for child in inside} == {"remora.sqlite3"}
    statements = [str(child["db.query.text"]).split()[0] for child in inside]
    assert [word for word in statements if word in ("INSERT", "SELECT")] == ["INSERT", "INSERT", "SELECT"]


def test_atomic_requests_keep_the_span_as_the_parent(program: Run) -> None:
    code = MODELS + 'show(call("/items"))\n'
    database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:", "ATOMIC_REQUESTS": True}
    result = program(code, env={"SETTINGS": json.dumps({"DATABASES": {"default": database}})})
    assert result.shown == [[200, "a,b,c"]]
    [span] = servers(result)
    inside = children(result.spans, span)
    assert [str(child["db.query.text"]).split()[0] for child in inside].count("BEGIN") == 1
