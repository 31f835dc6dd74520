"""Rules of engine.simulate.layout and engine.simulate.site."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest
import yaml

from engine.config.loading import load_with_notes
from engine.simulate import site
from engine.simulate.layout import free_ports, lay_out
from engine.simulate.wire import LOOPBACK


def test_no_two_share_a_port() -> None:
    layout = lay_out(20, laboratories=3)
    ports = [port for way in layout.ways for port in (way.listen, way.tap, way.old)] + [*layout.endpoints.values()]
    assert len(set(ports)) == len(ports) == 20 * 7 + 3


def test_connections_are_dealt_out_to_the_laboratories() -> None:
    layout = lay_out(5, laboratories=2)
    assert [link.laboratory for link in layout.links] == ["lab-1", "lab-2", "lab-1", "lab-2", "lab-1"]
    assert {link.orders.endpoint for link in layout.links} == {"lab-1", "lab-2"}
    assert len({link.results.endpoint for link in layout.links}) == 5


def test_a_port_that_somebody_has_is_left_alone() -> None:
    (port,) = free_ports(1)
    with socket.create_server((LOOPBACK, port)):
        assert port not in free_ports(5)


def test_a_port_that_was_promised_is_left_alone() -> None:
    (port,) = free_ports(1)
    assert port not in free_ports(5, beside=[port])


def test_too_many_are_refused() -> None:
    with pytest.raises(RuntimeError, match="40000 ports from 10000 to 32000 are wanted, only"):
        free_ports(40_000)


@pytest.mark.parametrize("medplum", [False, True])
def test_its_configuration_has_no_mistake_and_nothing_to_note(tmp_path: Path, medplum: bool) -> None:
    layout = lay_out(3)
    folder = tmp_path / "channels"
    folder.mkdir()
    server = {"base_url": "http://127.0.0.1:1", "client_id": "a", "client_secret": "b"}
    (tmp_path / "interlock.yaml").write_text(
        yaml.safe_dump({"medplum": server} if medplum else {"channels": "channels"})
    )
    (folder / "endpoints.yaml").write_text(yaml.safe_dump(site.endpoints(layout)))
    for id, channel in site.channels(layout, medplum=medplum, settle="1s").items():
        (folder / f"{id}.yaml").write_text(yaml.safe_dump(channel))
    configuration, notes = load_with_notes(tmp_path / "interlock.yaml")
    assert notes == []
    assert {channel.id for channel in configuration.channels} == set(layout.channels)
    orders = next(channel for channel in configuration.channels if channel.id == layout.links[0].orders.channel)
    assert orders.legacy is not None
    assert orders.target is not None
    assert orders.legacy.taps[0].forward is orders.target.destinations[0].endpoint
    assert orders.legacy.taps[0].source.port == layout.links[0].orders.tap
