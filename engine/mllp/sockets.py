"""What every MLLP socket is set to."""

from __future__ import annotations

import socket

KEEPALIVE = (("TCP_KEEPIDLE", 60), ("TCP_KEEPINTVL", 20), ("TCP_KEEPCNT", 4))
"""A peer that vanished without a word is noticed after 140 seconds. Not every system has all of these."""


def tune(sock: socket.socket | None) -> None:
    """Let the kernel notice dead peers, and send small messages at once. A socket that is gone is left alone."""
    if sock is None:
        return
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEPALIVE:
            if hasattr(socket, name):
                sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
    except OSError:
        return  # the event loop will report the loss
