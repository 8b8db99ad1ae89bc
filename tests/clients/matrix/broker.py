"""The broker under test: a highwater process of our own, or an address given."""

import json
import os
import subprocess
import tempfile
import time


class Highwater:
    """Starts one ephemeral highwater on a free port of 127.0.0.1 and ends it."""

    def __init__(self, binary: str, log_path: str):
        if not os.path.exists(binary):
            raise FileNotFoundError(f"{binary} is not built: cargo build --release, or name it by HIGHWATER")
        self.directory = tempfile.TemporaryDirectory(prefix="highwater-clients-")
        ready = os.path.join(self.directory.name, "ready.json")
        self.log = open(log_path, "wb")
        self.process = subprocess.Popen(
            [binary, "serve", "--ephemeral", "--listen", "127.0.0.1:0", "--ready-file", ready, "--exit-with-stdin"],
            stdin=subprocess.PIPE,
            stdout=self.log,
            stderr=self.log,
            cwd=self.directory.name,
        )
        deadline = time.monotonic() + 20
        while not os.path.exists(ready):
            if self.process.poll() is not None:
                raise RuntimeError(f"highwater ended with {self.process.returncode} before it was ready; see {log_path}")
            if time.monotonic() > deadline:
                self.process.kill()
                raise RuntimeError(f"highwater was not ready within 20 s; see {log_path}")
            time.sleep(0.01)
        with open(ready, encoding="utf-8") as file:
            listener = json.load(file)["listeners"][0]
        self.bootstrap = f"{listener['host']}:{listener['port']}"

    def alive(self) -> bool:
        return self.process.poll() is None

    def stop(self) -> int:
        """SIGTERM; its exit code, or -9 if it had to be killed."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()
        self.directory.cleanup()
        return self.process.returncode


class Given:
    """A broker that somebody else runs."""

    def __init__(self, bootstrap: str):
        self.bootstrap = bootstrap

    def alive(self) -> bool:
        return True

    def stop(self) -> int:
        return 0
