"""Queue an API workflow on one or several ComfyUI servers: upload portrait and voice, follow the run, fetch the video.

    python scripts/queue_workflow.py workflows/api/talk.json --job me.png me.wav me.mp4
    python scripts/queue_workflow.py workflows/api/talk.json --jobs jobs.csv --server gpu1:8188 --server gpu2:8188

Every job goes to the server with the shortest queue; the jobs of a server that stops answering move to the others.
What passes (a proxy's 502, 503 or 504, a connection that breaks) is waited for and asked again.
Needs aiohttp, which every ComfyUI environment has.
"""

from __future__ import annotations

import argparse
import asyncio
import copy
import csv
import json
import sys
import time
import unicodedata
import uuid
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

import aiohttp

DEFAULT_SERVER = "127.0.0.1:8188"
AHEAD = 2  # jobs of ours at a server at once: one runs, one waits, and the rest stay free to go elsewhere
QUIET_SECONDS = 30.0  # without a message for this long, ask the server whether the run is over
POLL_SECONDS = 1.0  # between questions where there is no socket to listen to
# Answers that pass: too early, too many, a gateway without its server (502 ... 504, and the same of large proxies).
PASSING = {408, 425, 429, 502, 503, 504, *range(520, 525)}
PATIENCE_SECONDS = 180.0  # how long a server may be away before its job goes elsewhere
FIRST_DELAY, LONGEST_DELAY = 0.5, 15.0  # seconds between tries, doubled from the first to the longest
LOSSES = 3  # times that one job's run may be lost before the job counts as failed
VIDEO_ENDINGS = (".mp4", ".webm", ".mkv", ".mov")

Workflow = dict[str, dict]
Progress = Callable[[str], None]


class JobFailed(Exception):
    """One sentence on why a job cannot be done anywhere."""


class ServerGone(Exception):
    """A server does not answer; its job may be done by another."""


class RunLost(Exception):
    """A server that answers knows nothing of a run: it was restarted, or the run was removed from its queue."""


class Passing(Exception):
    """What may go well in a moment: a gateway's answer, a broken connection, a timeout.

    refused: whether nothing listens there at all.
    """

    def __init__(self, reason: str, refused: bool = False) -> None:
        super().__init__(reason)
        self.refused = refused


@dataclass(frozen=True)
class Job:
    """What to speak with what, and where the video goes."""

    portrait: Path
    voice: Path
    out: Path


def fill_in(workflow: Workflow, portrait: str, voice: str, changes: Sequence[str] = ()) -> Workflow:
    """The workflow with the names of uploaded files, and with `changes` such as ``7.seed=3``.

    Raises JobFailed where the workflow has no, or more than one, node to put a file into.
    """
    filled = copy.deepcopy(workflow)
    for class_type, name, value in (("LoadImage", "image", portrait), ("LoadAudio", "audio", voice)):
        loaders = [node for node in filled.values() if node["class_type"] == class_type]
        if len(loaders) != 1:
            raise JobFailed(f"The workflow has {len(loaders)} {class_type} nodes, expected one to put a file into.")
        loaders[0]["inputs"][name] = value
    for change in changes:
        nodes, name, value = changed_input(filled, change)
        for node in nodes:
            node["inputs"][name] = value
    return filled


def changed_input(workflow: Workflow, change: str) -> tuple[list[dict], str, object]:
    """The nodes, the input and the value of a change such as ``7.seed=3``. Raises JobFailed for any other text."""
    target, equals, value = change.partition("=")
    node_name, dot, name = target.rpartition(".")
    if not (equals and dot):
        raise JobFailed(f"'{change}' is not a setting; write it as node.input=value, for example 7.seed=3.")
    nodes = [n for key, n in workflow.items() if node_name in (key, n["class_type"], n.get("_meta", {}).get("title"))]
    if not nodes:
        raise JobFailed(f"The workflow has no node '{node_name}'; give an id, a type or a title that is in it.")
    return nodes, name, _value(value)


def _value(text: str) -> object:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        return text


def rejection(answer: dict) -> str:
    """The host's refusal of a prompt in one line: what is missing, or each node's own sentence."""
    error = answer.get("error") or {}
    if isinstance(error, str):
        return error
    sentences = [
        f"{node['class_type']} ({key}): {problem.get('details') or problem['message']}"
        for key, node in (answer.get("node_errors") or {}).items()
        for problem in node["errors"]
    ]
    message = error.get("message", "no reason given")
    if error.get("type") == "missing_node_type":  # newer hosts name the node by its title
        message = f"The node {error['extra_info']['class_type']} does not exist."
    if "does not exist" in message:
        sentences.append("Install the pack that has this node on the server and restart it.")
    return " ".join([message, *sentences])


def videos_of(outputs: dict) -> list[dict]:
    """The finished video files among a run's outputs, whatever key a node reports them under."""
    files = [
        item
        for node in outputs.values()
        for items in node.values()
        if isinstance(items, list)
        for item in items
        if isinstance(item, dict) and str(item.get("filename", "")).lower().endswith(VIDEO_ENDINGS)
    ]
    kept = [file for file in files if file.get("type") != "temp"] or files
    return list({(f.get("type"), f.get("subfolder"), f["filename"]): f for f in kept}.values())


class Server:
    """One ComfyUI server; every method raises ServerGone when it does not answer."""

    def __init__(self, session: aiohttp.ClientSession, address: str) -> None:
        self.session = session
        self.address = address
        self.url = (address if "://" in address else f"http://{address}").rstrip("/")
        self.ours = 0  # jobs of ours at this server
        self.arriving = 0  # of these, the ones its own count does not hold yet
        self.gone = False
        self.lost = 0  # runs of ours that it has lost
        self.silence = f"No ComfyUI answers at {self.url}; start it, or give its address with --server."

    async def _ask_once(self, method: str, path: str, **options: object) -> bytes:
        """One request. Raises Passing, and JobFailed for answers that are final."""
        try:
            async with self.session.request(method, self.url + path, **options) as response:
                body = await response.read()
        except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as problem:
            refused = isinstance(problem, aiohttp.ClientConnectorError)
            raise Passing(str(problem) or type(problem).__name__, refused) from problem
        if response.status in PASSING:
            raise Passing(f"{response.status} {response.reason}")
        if response.status == 400 and path == "/prompt":
            raise JobFailed(f"{self.url} rejected the workflow: {rejection(self._json(path, body))}")
        if response.status >= 400:
            raise JobFailed(f"{self.url}{path} answered {response.status} {response.reason}; is it a ComfyUI server?")
        return body

    async def _ask(self, method: str, path: str, make: Callable[[], dict] = dict, follows: bool = True) -> bytes:
        """One request, again and again while the server is away for a moment.

        make: gives the request's options, for every try. follows: a job of ours is there, so that even a server that is
        not listening is waited for. Raises ServerGone where patience ends.
        """
        tries = Tries()
        while True:
            try:
                return await self._ask_once(method, path, **make())
            except Passing as problem:
                if (problem.refused and not follows) or not await tries.another():
                    raise ServerGone(self.silence) from problem

    async def _ask_json(self, method: str, path: str, make: Callable[[], dict] = dict, follows: bool = True) -> dict:
        return self._json(path, await self._ask(method, path, make, follows))

    def _json(self, path: str, body: bytes) -> dict:
        try:
            return json.loads(body)
        except ValueError:
            raise JobFailed(f"{self.url}{path} did not answer with JSON; is it a ComfyUI server?") from None

    async def queue_length(self) -> int:
        """Jobs running and waiting, anybody's."""
        answer = await self._ask_json("GET", "/prompt", lambda: {"timeout": aiohttp.ClientTimeout(total=20)}, False)
        if "exec_info" not in answer:
            raise JobFailed(f"{self.url}/prompt tells no queue; is it a ComfyUI server?")
        return int(answer["exec_info"]["queue_remaining"])

    async def check(self, workflow: Workflow, changes: Sequence[str]) -> None:
        """Raises JobFailed for a change of an input that its node does not have; the server would not say so."""
        for change in changes:
            nodes, name, _ = changed_input(workflow, change)
            for kind in sorted({node["class_type"] for node in nodes if name not in node["inputs"]}):
                known = await self._inputs_of(kind)
                if known and name not in known:
                    raise JobFailed(f"{kind} has no input '{name}', expected one of {', '.join(known)}.")

    async def _inputs_of(self, kind: str) -> list[str]:
        """The names of a node's inputs; none where the server does not tell them."""
        try:
            answer = await self._ask_json("GET", f"/object_info/{quote(kind, safe='')}", follows=False)
        except JobFailed:
            return []
        return [name for group in answer.get(kind, {}).get("input", {}).values() for name in group]

    async def upload(self, path: Path) -> str:
        """Put a file into the server's input folder; returns the name that a loader node takes."""
        with ExitStack() as files:

            def form() -> dict:
                data = aiohttp.FormData(quote_fields=False)  # names in UTF-8, not percent-encoded
                data.add_field("image", files.enter_context(path.open("rb")), filename=upload_name(path))
                return {"data": data}

            answer = await self._ask_json("POST", "/upload/image", form, False)
        return "/".join(filter(None, (answer.get("subfolder"), answer["name"])))

    async def run(self, workflow: Workflow, progress: Progress, queued: Callable[[], None] = lambda: None) -> dict:
        """Queue a workflow and wait for its end; returns what the nodes put out."""
        client = uuid.uuid4().hex
        async with AsyncExitStack() as stack:
            socket = await self._listen(client, stack)
            prompt_id = await self._queue(workflow, client)
            queued()
            await self._follow(socket, prompt_id, workflow, progress)
        history = await self._ask_json("GET", f"/history/{prompt_id}")
        if prompt_id not in history:
            raise JobFailed(f"{self.url} has no record of the run; its history may have been cleared.")
        return history[prompt_id]["outputs"]

    async def _listen(self, client: str, stack: AsyncExitStack) -> aiohttp.ClientWebSocketResponse | None:
        """The socket with a run's messages; None behind a proxy that hands none on."""
        tries = Tries()
        while True:
            connecting = self.session.ws_connect(f"{self.url}/ws?clientId={client}", max_msg_size=0)
            try:
                return await stack.enter_async_context(connecting)
            except aiohttp.WSServerHandshakeError as problem:
                if problem.status not in PASSING:
                    return None
                if not await tries.another():
                    raise ServerGone(self.silence) from problem
            except (aiohttp.ClientError, asyncio.TimeoutError, OSError) as problem:
                if isinstance(problem, aiohttp.ClientConnectorError) or not await tries.another():
                    raise ServerGone(self.silence) from problem

    async def _queue(self, workflow: Workflow, client: str) -> str:
        """Queue a workflow once, whatever happens to the answers; returns its id."""
        prompt_id = str(uuid.uuid4())
        request = {"json": {"prompt": workflow, "client_id": client, "prompt_id": prompt_id}}
        tries = Tries()
        while True:
            try:
                return self._json("/prompt", await self._ask_once("POST", "/prompt", **request))["prompt_id"]
            except Passing as problem:
                if not await tries.another():
                    raise ServerGone(self.silence) from problem
            if await self._has(prompt_id):  # it came through, only the answer did not
                return prompt_id

    async def _has(self, prompt_id: str) -> bool:
        queue = await self._ask_json("GET", "/queue")
        return in_queue(queue, prompt_id) or prompt_id in await self._ask_json("GET", f"/history/{prompt_id}")

    async def _follow(self, socket, prompt_id: str, workflow: Workflow, progress: Progress) -> None:
        """Read messages until the run ends; asks the server itself when the socket is quiet, breaks or is missing."""
        last = None
        while socket is not None:
            try:
                message = await socket.receive(timeout=QUIET_SECONDS)
            except asyncio.TimeoutError:
                if await self._is_over(prompt_id):
                    return
                continue
            except (aiohttp.ClientError, OSError):
                break
            if message.type in (aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED, aiohttp.WSMsgType.ERROR):
                break
            if message.type != aiohttp.WSMsgType.TEXT:
                continue  # previews
            event = json.loads(message.data)
            data = event.get("data") or {}
            if data.get("prompt_id") != prompt_id:
                continue
            if ended(event["type"], data):
                return
            if event["type"] == "progress":
                node = workflow.get(str(data.get("node")), {}).get("class_type", "")
                percent = int(100 * data["value"] / max(data["max"], 1))
                if (node, percent // 10) != last:
                    last = (node, percent // 10)
                    progress(f"{percent} % {node}")
        while not await self._is_over(prompt_id):
            await asyncio.sleep(POLL_SECONDS)

    async def _is_over(self, prompt_id: str) -> bool:
        """Whether the run is in the server's history; raises RunLost where it is neither there nor in the queue."""
        queue = await self._ask_json("GET", "/queue")  # before the history: a run that ends in between is in both
        entry = (await self._ask_json("GET", f"/history/{prompt_id}")).get(prompt_id)
        if entry is not None:
            for kind, data in (entry.get("status") or {}).get("messages", []):
                ended(kind, data)  # raises where it went wrong
            return True
        if not in_queue(queue, prompt_id):
            raise RunLost(f"{self.url} has lost the run: it was restarted, or the run was removed from its queue.")
        return False

    async def download(self, file: dict, out: Path) -> None:
        """Fetch one output file; `out` appears only when it is whole."""
        query = {key: file.get(key, "") for key in ("filename", "subfolder", "type")}
        body = await self._ask("GET", "/view", lambda: {"params": query})
        out.parent.mkdir(parents=True, exist_ok=True)
        part = out.with_name(out.name + ".part")
        part.write_bytes(body)
        part.replace(out)


class Tries:
    """Waits between tries, twice as long each time, until PATIENCE_SECONDS have passed since the first."""

    def __init__(self) -> None:
        self.delay, self.end = FIRST_DELAY, time.monotonic() + PATIENCE_SECONDS

    async def another(self) -> bool:
        """Wait and return True; False at once where patience has ended."""
        if time.monotonic() + self.delay > self.end:
            return False
        await asyncio.sleep(self.delay)
        self.delay = min(2 * self.delay, LONGEST_DELAY)
        return True


def upload_name(path: Path) -> str:
    """A file's own name, as far as a header can hold it: control characters become _, what is no UTF-8 becomes ?."""
    name = "".join("_" if unicodedata.category(c) == "Cc" else c for c in path.name)
    return name.encode("utf-8", "replace").decode()


def in_queue(queue: dict, prompt_id: str) -> bool:
    """Whether a run waits or goes on, by the server's /queue."""
    return any(prompt_id in job for jobs in queue.values() for job in jobs)


def ended(kind: str, data: dict) -> bool:
    """Whether a message says that the run is over; raises JobFailed where it went wrong."""
    if kind == "execution_error":
        reason = str(data.get("exception_message", "no reason given")).strip()
        raise JobFailed(f"{data.get('node_type')} ({data.get('node_id')}) failed: {reason}")
    if kind == "execution_interrupted":
        raise JobFailed("The run was interrupted on the server; what was written so far is in its output folder.")
    return kind == "executing" and data.get("node") is None  # execution_success comes before the history has the run


class Dispatcher:
    """Gives every job to the server with the shortest queue."""

    def __init__(self, servers: Sequence[Server]) -> None:
        self.servers = servers
        self.changed = asyncio.Condition()

    async def take(self) -> Server:
        """The answering server with the shortest queue and a place for us; waits for a place.

        Servers that have lost runs come last. Those that did not answer are asked again where no other is left.
        """
        async with self.changed:
            while True:
                alive = [server for server in self.servers if not server.gone] or self.servers
                free = [server for server in alive if server.ours < AHEAD]
                lengths = await asyncio.gather(*(server.queue_length() for server in free), return_exceptions=True)
                for server, length in zip(free, lengths, strict=True):
                    server.gone = isinstance(length, ServerGone)
                open_to_us = [
                    (server.lost, length + server.arriving, self.servers.index(server))
                    for server, length in zip(free, lengths, strict=True)
                    if isinstance(length, int)
                ]
                if open_to_us:
                    server = self.servers[min(open_to_us)[-1]]
                    server.ours += 1
                    server.arriving += 1
                    return server
                for length in lengths:
                    if isinstance(length, JobFailed):
                        raise length
                if all(server.gone for server in self.servers):
                    names = ", ".join(server.url for server in self.servers)
                    raise JobFailed(f"No ComfyUI answers at {names}; start one, or give its address with --server.")
                await self.changed.wait()

    async def give_back(self, server: Server, arriving: bool) -> None:
        """A job of ours has left the server."""
        async with self.changed:
            server.ours -= 1
            server.arriving -= arriving
            self.changed.notify_all()

    async def do(self, job: Job, workflow: Workflow, changes: Sequence[str], say: Progress) -> list[Path]:
        """Run one job wherever there is room; returns the files it made."""
        lost = 0
        while True:
            server = await self.take()
            arriving = True

            def queued(server: Server = server) -> None:
                nonlocal arriving
                arriving = False
                server.arriving -= 1
                say(f"queued on {server.url}")

            try:
                await server.check(workflow, changes)
                names = [await server.upload(path) for path in (job.portrait, job.voice)]
                outputs = await server.run(fill_in(workflow, *names, changes), say, queued)
                videos = videos_of(outputs)
                if not videos:
                    raise JobFailed(
                        "The run made no video; the workflow needs a JoyAvatar Stream to Video or a Save Video."
                    )
                outs = [job.out] + [job.out.with_stem(f"{job.out.stem}-{n}") for n in range(2, len(videos) + 1)]
                for file, out in zip(videos, outs, strict=True):
                    await server.download(file, out)
                return outs
            except ServerGone as problem:
                server.gone = True
                say(f"{problem} Trying another.")
            except RunLost as problem:
                lost, server.lost = lost + 1, server.lost + 1
                if lost == LOSSES:
                    raise JobFailed(f"{problem} This happened {LOSSES} times.") from None
                say(f"{problem} Trying another, or this one again.")
            finally:
                await self.give_back(server, arriving)


async def run_jobs(
    workflow: Workflow, jobs: Sequence[Job], servers: Sequence[str], changes: Sequence[str] = (), say: Progress = print
) -> list[list[Path] | JobFailed]:
    """Do all jobs; per job, the files it made or why it failed."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=20, sock_read=300)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        dispatcher = Dispatcher([Server(session, address) for address in servers])

        async def one(job: Job) -> list[Path] | JobFailed:
            try:
                return await dispatcher.do(job, workflow, changes, lambda text: say(f"{job.out}: {text}"))
            except JobFailed as problem:
                return problem
            except OSError as problem:
                file = problem.filename or job.out
                return JobFailed(f"{file} cannot be read or written: {problem.strerror or problem}.")

        return await asyncio.gather(*(one(job) for job in jobs))


def read_workflow(path: Path) -> Workflow:
    """An API workflow; says what to do where the file is something else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise JobFailed(f"{path} cannot be read as JSON: {problem}.") from None
    if isinstance(content, dict) and "nodes" in content:
        raise JobFailed(f"{path} is a workflow of the editor; use File > Export (API), or workflows/api.")
    if not isinstance(content, dict) or not all(isinstance(n, dict) and "class_type" in n for n in content.values()):
        raise JobFailed(f"{path} is not an API workflow; each entry needs a class_type.")
    return content


def read_jobs(path: Path) -> list[Job]:
    """Jobs from a file with a line ``portrait,voice,out`` each; empty lines and lines with # are passed over."""
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()  # spreadsheets begin a file with a mark
    except OSError as problem:
        raise JobFailed(f"{path} cannot be read: {problem}.") from None
    except UnicodeDecodeError:
        raise JobFailed(f"{path} is not a text in UTF-8; save it as CSV UTF-8.") from None
    rows = list(csv.reader(line for line in lines if line.strip() and not line.lstrip().startswith("#")))
    for row in rows:
        if len(row) != 3:
            raise JobFailed(f"{path} has the line '{','.join(row)}', expected portrait,voice,out.")
    return [Job(*(Path(cell.strip()) for cell in row)) for row in rows]


def check_outs(outs: Sequence[Path], read: Sequence[Path] = ()) -> None:
    """Raises JobFailed where a video cannot be written, would be written twice, or would replace a file in `read`."""
    places = [out.expanduser().resolve() for out in outs]
    inputs = {path.expanduser().resolve() for path in read}
    for out, place in zip(outs, places, strict=True):
        if place.is_dir():
            raise JobFailed(f"{out} is a folder; give each job the name of its video, such as {out / 'me.mp4'}.")
        if place.suffix.lower() not in VIDEO_ENDINGS:
            raise JobFailed(f"{out} is expected to end in one of {', '.join(VIDEO_ENDINGS)}; rename it.")
        if places.count(place) > 1:
            raise JobFailed(f"{out} is the video of {places.count(place)} jobs; give each job a name of its own.")
        if place in inputs:
            raise JobFailed(f"{out} would replace a file that the jobs read; choose another name.")
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
        except OSError as problem:
            raise JobFailed(f"{out} cannot be written: {problem.strerror}; choose another folder.") from None


def parser() -> argparse.ArgumentParser:
    """All flags."""
    top = argparse.ArgumentParser(description="Make talking videos on one or several ComfyUI servers.")
    top.add_argument("workflow", type=Path, help="a workflow in API format, for example workflows/api/talk.json")
    top.add_argument(
        "--job",
        nargs=3,
        action="append",
        type=Path,
        default=[],
        metavar=("PORTRAIT", "VOICE", "OUT"),
        help="repeatable",
    )
    top.add_argument("--jobs", type=Path, help="a file with a line portrait,voice,out for each job")
    top.add_argument("--server", action="append", help=f"address, repeatable; default {DEFAULT_SERVER}")
    top.add_argument(
        "--set", action="append", default=[], metavar="NODE.INPUT=VALUE", help="change an input; repeatable: 7.seed=3"
    )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 when every job is done, 1 when one failed, 2 for bad input, 130 when stopped."""
    args = parser().parse_args(arguments)
    try:
        workflow = read_workflow(args.workflow)
        jobs = [Job(*paths) for paths in args.job] + (read_jobs(args.jobs) if args.jobs else [])
        if not jobs:
            raise JobFailed("There is nothing to do; give --job PORTRAIT VOICE OUT or --jobs FILE.")
        for path in (path for job in jobs for path in (job.portrait, job.voice)):
            if not path.is_file():
                raise JobFailed(f"{path} is not a file; each job needs a portrait and a voice that exist.")
        read = [args.workflow, *([args.jobs] if args.jobs else [])]
        read += [path for job in jobs for path in (job.portrait, job.voice)]
        check_outs([job.out for job in jobs], read)
        fill_in(workflow, "portrait", "voice", args.set)
    except JobFailed as problem:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    try:
        results = asyncio.run(run_jobs(workflow, jobs, args.server or [DEFAULT_SERVER], args.set))
    except KeyboardInterrupt:
        print("stopped following; jobs that are queued still run on their servers", file=sys.stderr)
        return 130
    for job, result in zip(jobs, results, strict=True):
        if isinstance(result, JobFailed):
            print(f"error: {job.out}: {result}", file=sys.stderr)
        else:
            print(f"done: {', '.join(map(str, result))}")
    return int(any(isinstance(result, JobFailed) for result in results))


if __name__ == "__main__":
    sys.exit(main())
