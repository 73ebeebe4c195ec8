"""What Google's emulator does otherwise than the service, in ten lines each.

Every test passes while the fault is there: when one fails, the emulator has been mended, and
its name goes from EMULATOR_FAULTS in test_datastore.py. None of them runs on the real service.
"""

import uuid

import grpc
import pytest
from google.api_core import exceptions
from google.cloud import datastore

from tests.engines.emulator import PROJECT

pytestmark = pytest.mark.slow


@pytest.fixture
def client(emulator):
    if emulator.real:
        pytest.skip("about the emulator")
    emulator.new_address()
    return datastore.Client(PROJECT, namespace=f"f-{uuid.uuid4().hex}")


def entity(client, name, **properties):
    made = datastore.Entity(client.key("thing", name), exclude_from_indexes=("body",))
    made.update(properties)
    return made


def test_emulator_orders_names_by_utf16_units(client):
    """The service orders the bytes of UTF-8."""
    names = ["\uffff", "\U0001d11e"]
    assert sorted(names, key=str.encode) == names
    client.put_multi([entity(client, name) for name in names])
    query = client.query(kind="thing", order=["__key__"])
    assert [each.key.name for each in query.fetch()] == names[::-1]


def test_emulator_takes_no_commit_over_four_mebibytes(client):
    """The service takes 10 MiB."""
    client.put_multi([entity(client, f"k{n}", body=bytes(900_000)) for n in range(4)])
    with pytest.raises(exceptions.Cancelled, match="RST_STREAM"):
        client.put_multi([entity(client, f"k{n}", body=bytes(900_000)) for n in range(5)])


def test_emulator_has_no_alternatives_in_one_filter(client):
    """The service has IN; the engine merges one query for each alternative on both."""
    query = client.query(kind="thing")
    query.add_filter(filter=datastore.query.PropertyFilter("t", "IN", ["a", "b"]))
    with pytest.raises(exceptions.GoogleAPICallError) as caught:
        list(query.fetch())
    assert caught.value.grpc_status_code == grpc.StatusCode.INVALID_ARGUMENT


def test_emulator_has_no_aggregations(client):
    """The service counts; the engine counts keys on both."""
    query = client.aggregation_query(client.query(kind="thing")).count()
    with pytest.raises(exceptions.MethodNotImplemented):
        list(query.fetch())
