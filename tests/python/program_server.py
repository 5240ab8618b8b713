"""Runs winnow's Python programs, each in a fork of one process that has imported their packages.

A program begins as it does by itself, with streams, environment and folder of its own, and ends by its exit code or a
signal; only the imports, which take longer than most of what tests ask of it, are done once. What winnow and the script
winnow-PROGRAM do before (finding a Python with the packages) is not part of it: tests of those call launch.run.
"""

import atexit
import importlib
import json
import os
import runpy
import socket
import subprocess
import sys
import tempfile

MODULES = {"prepare": "winnow.prepare", "score": "winnow.score", "serve-check": "winnow.serving"}
# What they import when they first need it.
LATER = {"prepare": "transformers.models.auto.tokenization_auto"}
OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}  # packages look at these when they are imported
N_STREAMS = 3


class ProgramServer:
    """The process that forks, from the first program of a test file to its last."""

    def __init__(self):
        self._socket = None

    def run(self, arguments, environment, cwd, timeout):
        """As subprocess.run(["winnow", *arguments], capture_output=True, text=True)."""
        if self._socket is None:
            self._start()
        words = [str(word) for word in arguments]
        request = json.dumps({"words": words, "environment": environment, "cwd": str(cwd or os.getcwd())})
        with open(os.devnull) as null, tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            self._socket.settimeout(timeout)
            socket.send_fds(self._socket, [request.encode()], [null.fileno(), out.fileno(), err.fileno()])
            code = int(self._socket.recv(100))
            out.seek(0)
            err.seek(0)
            return subprocess.CompletedProcess(["winnow", *words], code, out.read(), err.read())

    def _start(self):
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        folder = os.path.join(os.path.dirname(__file__), "../../python")
        with theirs:
            server = subprocess.Popen(
                [sys.executable, "-P", __file__, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                env=os.environ | OFFLINE | {"PYTHONPATH": os.path.abspath(folder)},
            )
        atexit.register(self._stop, server)

    def _stop(self, server):
        self._socket.close()
        server.wait()


def become(request, streams):
    """The streams, environment and folder of a program, in the fork that it runs in."""
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["cwd"])


def serve(connection):
    """Returns, in the fork, the words of the program that it is to be; ends with the test."""
    while True:
        data, streams, _, _ = socket.recv_fds(connection, 2**18, N_STREAMS)
        if not data:
            os._exit(0)
        request = json.loads(data)
        program = request["words"][0]
        for name in (f"{MODULES[program]}.main", LATER.get(program, "sys")):
            importlib.import_module(name)
        child = os.fork()
        if child == 0:
            connection.close()
            become(request, streams)
            return request["words"]
        for stream in streams:
            os.close(stream)
        connection.send(str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])).encode())


if __name__ == "__main__":
    own = socket.socket(fileno=int(sys.argv[1]))
    words = serve(own)
    sys.argv = [f"winnow-{words[0]}", *words[1:]]
    runpy.run_module(MODULES[words[0]], run_name="__main__", alter_sys=True)
