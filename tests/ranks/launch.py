"""Starts ranks of a test program, on the loopback with a port that the kernel chose, and sees that none is left behind."""
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import time
import uuid


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def plain_environment(**extra):
    """Without what an outer launcher may have set."""
    env = {k: v for k, v in os.environ.items()
           if not k.startswith(("TORCHELASTIC_", "SLURM_", "LAMINA_", "GLOO_", "PET_", "TORCH_CPP")) and
           k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")}
    env.update(OMP_NUM_THREADS="1", **{k: str(v) for k, v in extra.items()})
    return env


def state_of(pid):
    """The letter of /proc, or nothing when the process has gone."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return None


def marked(mark):
    """Processes that carry the mark in their environment, and live."""
    found = []
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes() and state_of(folder.name) not in (None, "Z"):
                found.append(int(folder.name))
        except OSError:
            pass
    return found


class Process:
    def __init__(self, command, env):
        self.out = tempfile.TemporaryFile("w+")
        self.err = tempfile.TemporaryFile("w+")
        self.process = subprocess.Popen([str(word) for word in command], env=env, stdout=self.out, stderr=self.err,
                                        stdin=subprocess.DEVNULL)
        self.pid = self.process.pid
        self.status = None
        self.ended = None

    def poll(self):
        if self.ended is None and self.process.poll() is not None:
            self.status, self.ended = self.process.returncode, time.monotonic()
        return self.status

    def text(self, stream):
        stream.seek(0)
        return stream.read()

    @property
    def stdout(self):
        return self.text(self.out)

    @property
    def stderr(self):
        return self.text(self.err)

    def said(self):
        return f"[status {self.status}]\n{self.stdout}{self.stderr}"


class Job:
    """`size` ranks of one command, started by hand; leaves nobody behind, whatever the test does."""

    def __init__(self, command, size, port=None, only=None, **extra):
        self.mark = f"LAMINA_MARK={uuid.uuid4()}"
        self.port = port or free_port()
        self.started = time.monotonic()
        self.ranks = []
        for rank in range(size) if only is None else only:
            env = plain_environment(RANK=rank, WORLD_SIZE=size, LOCAL_RANK=rank, LOCAL_WORLD_SIZE=size, MASTER_ADDR="127.0.0.1",
                                    MASTER_PORT=self.port)
            env.update({k: str(v) for k, v in extra.items()})
            env["LAMINA_MARK"] = self.mark.partition("=")[2]
            self.ranks.append(Process(command, env))

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for rank in self.ranks:
            if rank.poll() is None:
                rank.process.kill()
                rank.process.wait()

    def wait(self, seconds, which=None):
        """True when all (or `which`) have ended in time."""
        ranks = self.ranks if which is None else [self.ranks[i] for i in which]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if all([rank.poll() is not None for rank in ranks]):
                return True
            time.sleep(0.02)
        return False

    def wait_for(self, text, rank=0, seconds=30):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if text in self.ranks[rank].stdout:
                return
            if self.ranks[rank].poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"rank {rank} did not say {text!r}: {self.said()}")

    def left(self):
        return marked(self.mark)

    def said(self):
        return "\n".join(f"rank {i}: {rank.said()}" for i, rank in enumerate(self.ranks))


def stop(pid):
    os.kill(pid, signal.SIGSTOP)
