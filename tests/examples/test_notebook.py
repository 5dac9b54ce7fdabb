"""A server in a Jupyter kernel, and at IPython's prompt: neither is blocked, or harmed."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest
import serving

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(serving.PEER != "ppserver", reason="an API of ppserver"),
    pytest.mark.skipif("TEST_SANITIZER" in os.environ, reason="the kernel is not built for it"),
]

NOTEBOOK = serving.ROOT / "examples" / "notebook.ipynb"
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def finish(*command: str, text: str = "") -> str:
    """What a program prints. It is another process: its libraries' warnings are not ours."""
    done = subprocess.run(
        [sys.executable, *command],
        input=text,
        capture_output=True,
        text=True,
        timeout=serving.MUST_SECONDS,
        env=ENVIRONMENT,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_notebook() -> None:
    serving.optional("nbclient", "ipykernel", "numpy")
    code = f"""
    import nbclient, nbformat
    notebook = nbformat.read({str(NOTEBOOK)!r}, as_version=4)
    nbclient.NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    for cell in notebook.cells:
        for output in cell.get("outputs", ()):
            print(output["output_type"], output.get("data", output).get("text/plain", output))
    """
    outputs = finish("-c", textwrap.dedent(code)).splitlines()
    assert outputs[0].startswith("execute_result 'http://127.0.0.1:")
    assert [line.removeprefix("execute_result ") for line in outputs[1:4]] == [
        "{'Nairobi': 23.44, 'Oslo': 6.72}",
        "['Lima', 'Nairobi', 'Oslo']",
        "'Nairobi'",
    ]
    assert "'fd_accept_count': 3" in outputs[4]
    assert outputs[5:] == ["execute_result False"]


KERNEL = """
import sys, time, urllib.request
from jupyter_client import KernelManager

CELLS = {
    "serve": '''
import threading, time
import parallel
class Http:
    http11 = True
    def plain(self, transport, data):
        return b"hello"
    def there(self, transport, data):
        return str(where())
@parallel.call_from_main_thread_and_wait
def where():
    return threading.current_thread() is threading.main_thread()
server = parallel.server("127.0.0.1", 0)
parallel.register(transport=server, protocol=Http)
server.start()
print(server.port)
''',
    "sleep": "print('begun', flush=True)\\ntime.sleep(30)",
    "stop": "server.stop()\\nprint(threading.active_count() >= 1)",
}

manager = KernelManager(kernel_name="python3")
manager.start_kernel()
client = manager.client()
client.start_channels()
client.wait_for_ready(timeout=30)

def follow(identity, until):
    '''What a cell prints, up to its end, or until it prints something.'''
    text = ""
    while True:
        message = client.get_iopub_msg(timeout=30)
        if message["parent_header"].get("msg_id") != identity:
            continue
        kind, content = message["msg_type"], message["content"]
        if kind == "stream":
            text += content["text"]
        elif kind == "error":
            text += content["ename"]
        if (until and until in text) or (kind == "status" and content["execution_state"] == "idle"):
            return text

def execute(name, until=""):
    return follow(client.execute(CELLS[name]), until)

def get(path):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=60) as response:
        return response.read().decode()

try:
    port = int(execute("serve"))
    print(get("plain"), get("there"))  # while the prompt is free
    sleeping = client.execute(CELLS["sleep"])
    follow(sleeping, "begun")
    print(get("plain"))  # while a cell runs
    manager.interrupt_kernel()
    print(follow(sleeping, ""))
    print(get("plain"), manager.is_alive())
    print(execute("stop"))
    import socket
    with socket.create_server(("127.0.0.1", port)):
        print("free")
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=True)
"""


def test_a_cell_that_is_interrupted_does_not_end_the_server() -> None:
    serving.optional("jupyter_client", "ipykernel")
    assert finish("-c", KERNEL).split() == [
        *("hello", "True", "hello", "KeyboardInterrupt", "hello", "True", "True", "free")
    ]


def test_ipython() -> None:
    serving.optional("IPython")
    lines = """
    import parallel, urllib.request
    class Http:
        http11 = True
        def plain(self, transport, data): return b"hello"


    server = parallel.server("127.0.0.1", 0)
    parallel.register(transport=server, protocol=Http)
    server.start()
    url = f"http://127.0.0.1:{server.port}/plain"
    print("got", urllib.request.urlopen(url, timeout=60).read())
    server.stop()
    import socket
    bound = socket.create_server(("127.0.0.1", server.port))
    print("bound", bound.getsockname()[1] == server.port)
    exit
    """
    printed = finish(
        *("-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor"),
        *("--HistoryManager.enabled=False",),
        text=textwrap.dedent(lines),
    )
    assert "got b'hello'" in printed
    assert "bound True" in printed


def test_start_makes_no_process() -> None:
    """A fork would break a notebook's kernel."""
    code = """
    import os, parallel
    def forked(): print("forked")
    os.register_at_fork(before=forked)
    class Http:
        http11 = True
    server = parallel.server("127.0.0.1", 0)
    parallel.register(transport=server, protocol=Http)
    server.start()
    print(len(open(f"/proc/self/task/{os.getpid()}/children").read().split()))
    server.stop()
    """
    assert finish("-c", textwrap.dedent(code)).split() == ["0"]
