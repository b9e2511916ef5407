"""Ctrl-C must be heard here, also where a background job started the tests with it ignored."""

from __future__ import annotations

import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # Children start with the default action: a handler is not inherited, "ignored" is.
    signal.signal(signal.SIGINT, signal.default_int_handler)
