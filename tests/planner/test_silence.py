"""Native code must not write into the output of the command line."""

import ctypes

from sparseplan.planner.silence import silent_stdout


def test_c_output_is_dropped_inside_and_kept_outside(capfd) -> None:
    libc = ctypes.CDLL(None)
    libc.puts(b"before")
    with silent_stdout():
        libc.puts(b"inside")
    libc.puts(b"after")
    libc.fflush(None)
    assert capfd.readouterr().out == "before\nafter\n"
