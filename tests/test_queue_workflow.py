"""Queueing workflows on servers: against servers in this process that answer as ComfyUI does."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import pytest

aiohttp = pytest.importorskip("aiohttp", reason="aiohttp is not installed: pip install -e .[headless]")
from aiohttp import test_utils, web  # noqa: E402

SCRIPT = Path(__file__).parents[1] / "scripts" / "queue_workflow.py"
spec = importlib.util.spec_from_file_location("queue_workflow", SCRIPT)
queue_workflow = importlib.util.module_from_spec(spec)
sys.modules[spec.name] = queue_workflow  # dataclasses look their module up
spec.loader.exec_module(queue_workflow)

WORKFLOW = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}, "_meta": {"title": "Portrait"}},
    "2": {"class_type": "LoadAudio", "inputs": {"audio": "x.flac"}},
    "3": {"class_type": "JoyAvatarStreamToVideo", "inputs": {"quality": 18, "seed": ["1", 0]}},
}


class FakeComfy:
    """The part of a ComfyUI server that the script talks to."""

    def __init__(self, waiting: int = 0, refusal: dict | None = None, error: str | None = None, dies: bool = False):
        self.waiting, self.refusal, self.error, self.dies = waiting, refusal, error, dies
        self.uploads: dict[str, bytes] = {}
        self.prompts: list[dict] = []
        self.history: dict[str, dict] = {}
        self.sockets: dict[str, web.WebSocketResponse] = {}
        self.tasks: set[asyncio.Task] = set()

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.get("/ws", self.ws),
                web.get("/prompt", self.queue_info),
                web.post("/prompt", self.queue),
                web.post("/upload/image", self.upload),
                web.get("/history/{id}", self.get_history),
                web.get("/queue", self.running),
                web.get("/view", self.view),
                web.get("/object_info/{name}", self.object_info),
            ]
        )
        return app

    async def ws(self, request):
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        self.sockets[request.query["clientId"]] = socket
        await socket.send_bytes(b"a preview")
        async for _ in socket:
            pass
        return socket

    async def queue_info(self, request):
        return web.json_response({"exec_info": {"queue_remaining": self.waiting}})

    async def running(self, request):
        return web.json_response({"queue_running": [], "queue_pending": []})

    async def upload(self, request):
        file = (await request.post())["image"]
        self.uploads[file.filename] = file.file.read()
        return web.json_response({"name": file.filename, "subfolder": "", "type": "input"})

    async def queue(self, request):
        body = await request.json()
        if self.refusal:
            return web.json_response(self.refusal, status=400)
        self.prompts.append(body["prompt"])
        self.waiting += 1
        prompt_id = f"run-{len(self.prompts)}"
        task = asyncio.create_task(self.work(prompt_id, self.sockets[body["client_id"]]))
        self.tasks.add(task)
        return web.json_response({"prompt_id": prompt_id, "number": 1, "node_errors": {}})

    async def work(self, prompt_id, socket):
        await asyncio.sleep(0.05)
        self.waiting -= 1
        if self.dies:
            await socket.close()
            return

        async def send(kind, **data):
            await socket.send_json({"type": kind, "data": {"prompt_id": prompt_id, **data}})

        for value in range(1, 5):
            await send("progress", node="3", value=value, max=4)
        if self.error:
            await send("execution_error", node_type="JoyAvatarReference", node_id="1", exception_message=self.error)
            return
        await send("execution_success")
        video = {"filename": "talk_00001.mp4", "subfolder": "JoyAvatar", "type": "output"}
        plot = {"filename": "plot.png", "subfolder": "", "type": "temp"}
        outputs = {"3": {"images": [video], "animated": [True]}, "4": {"images": [plot]}}
        self.history[prompt_id] = {"outputs": outputs, "status": {"messages": []}}
        await send("executing", node=None)

    async def get_history(self, request):
        return web.json_response({k: v for k, v in self.history.items() if k == request.match_info["id"]})

    async def object_info(self, request):
        inputs = {"required": {"quality": ["INT", {}]}, "optional": {"filename_prefix": ["STRING", {}]}}
        name = request.match_info["name"]
        return web.json_response({name: {"input": inputs}} if name == "JoyAvatarStreamToVideo" else {})

    async def view(self, request):
        assert request.query["type"] == "output"
        return web.Response(body=b"video of " + request.query["filename"].encode())


@pytest.fixture
def jobs(tmp_path):
    def make(count: int) -> list:
        made = []
        for n in range(count):
            portrait, voice = tmp_path / f"{n}.png", tmp_path / f"{n}.flac"
            portrait.write_bytes(b"png")
            voice.write_bytes(b"flac")
            made.append(queue_workflow.Job(portrait, voice, tmp_path / "out" / f"{n}.mp4"))
        return made

    return make


def run(fakes, jobs, changes=(), extra_servers=()):
    """Serve the fakes, do the jobs; returns the results and what was said."""
    said: list[str] = []

    async def serve_and_run():
        servers = [test_utils.TestServer(fake.app()) for fake in fakes]
        for server in servers:
            await server.start_server()
        addresses = [*extra_servers, *(f"127.0.0.1:{server.port}" for server in servers)]
        try:
            return await queue_workflow.run_jobs(WORKFLOW, jobs, addresses, changes, said.append)
        finally:
            for server in servers:
                await server.close()

    return asyncio.run(serve_and_run()), said


def test_a_job_uploads_runs_and_downloads(jobs):
    fake, [job] = FakeComfy(), jobs(1)
    [files], said = run([fake], [job])
    assert files == [job.out]
    assert job.out.read_bytes() == b"video of talk_00001.mp4"
    assert fake.uploads == {"0.png": b"png", "0.flac": b"flac"}
    assert fake.prompts[0]["1"]["inputs"]["image"] == "0.png"
    assert fake.prompts[0]["2"]["inputs"]["audio"] == "0.flac"
    assert any("100 % JoyAvatarStreamToVideo" in line for line in said)
    assert not list(job.out.parent.glob("*.part"))


def test_a_setting_reaches_the_node_by_id_type_or_title(jobs):
    fake = FakeComfy()
    run([fake], jobs(1), ["3.quality=30", "JoyAvatarStreamToVideo.filename_prefix=a/b", "Portrait.note=hello"])
    assert fake.prompts[0]["3"]["inputs"] == {"quality": 30, "seed": ["1", 0], "filename_prefix": "a/b"}
    assert fake.prompts[0]["1"]["inputs"]["note"] == "hello"


def test_jobs_go_to_the_shortest_queue(jobs):
    busy, idle = FakeComfy(waiting=5), FakeComfy()
    results, _ = run([busy, idle], jobs(3))
    assert all(isinstance(result, list) for result in results)
    assert (len(busy.prompts), len(idle.prompts)) == (1, 2)  # two may stand at a server, the third takes what is left


def test_equal_servers_share_the_jobs(jobs):
    fakes = [FakeComfy(), FakeComfy()]
    run(fakes, jobs(4))
    assert [len(fake.prompts) for fake in fakes] == [2, 2]


def test_more_jobs_than_places_are_all_done(jobs):
    fakes = [FakeComfy(), FakeComfy()]
    results, _ = run(fakes, jobs(9))
    assert all(isinstance(result, list) for result in results)
    assert sum(len(fake.prompts) for fake in fakes) == 9


def test_the_jobs_of_a_dead_server_move_to_the_others(jobs):
    dies, lives = FakeComfy(dies=True), FakeComfy()
    results, said = run([dies, lives], jobs(2))
    assert all(isinstance(result, list) for result in results)
    assert len(lives.prompts) == 2
    assert any("has lost the run" in line and "Trying another" in line for line in said)


def test_a_run_that_the_only_server_loses_is_queued_again(jobs):
    class LosesOne(FakeComfy):
        async def work(self, prompt_id, socket):
            if prompt_id != "run-1":
                return await super().work(prompt_id, socket)
            self.waiting -= 1
            await socket.close()

    fake = LosesOne()
    results, _ = run([fake], jobs(3))
    assert all(isinstance(result, list) for result in results)
    assert len(fake.prompts) == 4


def test_a_run_that_is_always_lost_fails_in_one_sentence(jobs):
    [result], _ = run([FakeComfy(dies=True)], jobs(1))
    assert str(result).endswith("or the run was removed from its queue. This happened 3 times.")


def test_a_video_that_cannot_be_written_fails_alone(jobs):
    first, second = jobs(2)
    first.out.parent.write_bytes(b"a file where the folder should be")
    second = queue_workflow.Job(second.portrait, second.voice, second.portrait.with_suffix(".mp4"))
    results, _ = run([FakeComfy()], [first, second])
    assert str(results[0]).startswith(f"{first.out.parent}") and "cannot be read or written" in str(results[0])
    assert results[1] == [second.out]


def test_a_setting_that_no_node_has_is_refused(jobs):
    [result], _ = run([FakeComfy()], jobs(1), ["3.filename_prefx=a"])
    assert "JoyAvatarStreamToVideo has no input 'filename_prefx', expected one of quality, file" in str(result)


def test_a_server_that_never_answered_is_passed_over(jobs):
    [result], _ = run([FakeComfy()], jobs(1), extra_servers=["127.0.0.1:9"])
    assert isinstance(result, list)


def test_no_server_at_all_is_one_sentence(jobs):
    [result], _ = run([], jobs(1), extra_servers=["127.0.0.1:9"])
    assert str(result) == "No ComfyUI answers at http://127.0.0.1:9; start one, or give its address with --server."


def test_a_missing_node_says_what_to_install(jobs):
    refusal = {
        "error": {
            "type": "invalid_prompt",
            "message": "Cannot execute because node JoyAvatarReference does not exist.",
        },
        "node_errors": {},
    }
    [result], _ = run([FakeComfy(refusal=refusal)], jobs(1))
    assert "node JoyAvatarReference does not exist. Install the pack" in str(result)


def test_a_rejected_prompt_shows_the_nodes_sentence(jobs):
    problem = {"type": "custom_validation_failed", "message": "Custom validation failed", "details": "recent is 7."}
    refusal = {
        "error": {"type": "prompt_outputs_failed_validation", "message": "Prompt outputs failed validation"},
        "node_errors": {"5": {"class_type": "JoyAvatarContinuity", "errors": [problem], "dependent_outputs": ["3"]}},
    }
    [result], _ = run([FakeComfy(refusal=refusal)], jobs(1))
    assert str(result).endswith("Prompt outputs failed validation JoyAvatarContinuity (5): recent is 7.")


def test_a_node_that_fails_shows_its_sentence(jobs):
    [result], _ = run([FakeComfy(error="The portrait is 1x1.\n")], jobs(1))
    assert str(result) == "JoyAvatarReference (1) failed: The portrait is 1x1."


def test_something_that_is_not_comfyui_is_said(jobs):
    class Other(FakeComfy):
        async def queue_info(self, request):
            return web.Response(text="hello")

    [result], _ = run([Other()], jobs(1))
    assert "is it a ComfyUI server?" in str(result)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({"nodes": [], "links": []}, "is a workflow of the editor"),
        ({"1": {"inputs": {}}}, "is not an API workflow"),
        (None, "cannot be read as JSON"),
        ({"1": WORKFLOW["1"]}, "The workflow has 0 LoadAudio nodes"),
        ({**WORKFLOW, "9": WORKFLOW["1"]}, "The workflow has 2 LoadImage nodes"),
    ],
)
def test_a_workflow_that_cannot_be_queued_is_one_sentence(content, sentence, tmp_path, capsys, jobs):
    path = tmp_path / "workflow.json"
    path.write_text("{" if content is None else json.dumps(content))
    [job] = jobs(1)
    assert queue_workflow.main([str(path), "--job", str(job.portrait), str(job.voice), str(job.out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and sentence in error and error.count("\n") == 1


def test_a_jobs_file_is_read_line_by_line(tmp_path):
    path = tmp_path / "jobs.csv"
    path.write_text("# portrait,voice,out\na.png, a.wav, a.mp4\n\nb.png,b.wav,b.mp4\n")
    assert [str(job.out) for job in queue_workflow.read_jobs(path)] == ["a.mp4", "b.mp4"]
    path.write_bytes("\ufeffá.png,a.wav,a.mp4\r\n".encode())
    assert queue_workflow.read_jobs(path)[0].portrait == Path("á.png")
    path.write_bytes("á.png,a.wav,a.mp4".encode("latin-1"))
    with pytest.raises(queue_workflow.JobFailed, match="save it as CSV UTF-8"):
        queue_workflow.read_jobs(path)
    path.write_text("a.png,a.wav\n")
    with pytest.raises(queue_workflow.JobFailed, match=r"expected portrait,voice,out"):
        queue_workflow.read_jobs(path)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "There is nothing to do"),
        (["--job", "nobody.png", "no.wav", "o.mp4"], "nobody.png is not a file"),
        (["--jobs", "nothing.csv"], "nothing.csv cannot be read"),
    ],
)
def test_bad_arguments_are_one_sentence(flags, sentence, tmp_path, capsys):
    path = tmp_path / "workflow.json"
    path.write_text(json.dumps(WORKFLOW))
    assert queue_workflow.main([str(path), *flags]) == 2
    assert sentence in capsys.readouterr().err


def test_videos_that_could_not_be_written_are_refused_at_once(tmp_path):
    with pytest.raises(queue_workflow.JobFailed, match="is a folder; give each job the name of its video"):
        queue_workflow.check_outs([tmp_path])
    with pytest.raises(queue_workflow.JobFailed, match="is the video of 2 jobs"):
        queue_workflow.check_outs([tmp_path / "a.mp4", tmp_path / "b" / ".." / "a.mp4"])
    with pytest.raises(queue_workflow.JobFailed, match=r"expected to end in one of \.mp4"):
        queue_workflow.check_outs([tmp_path / "a.png"])
    (tmp_path / "me.mp4").write_bytes(b"a voice")
    with pytest.raises(queue_workflow.JobFailed, match="would replace a file that the jobs read"):
        queue_workflow.check_outs([tmp_path / "me.mp4"], [tmp_path / "b" / ".." / "me.mp4"])
    with pytest.raises(queue_workflow.JobFailed, match="cannot be written"):
        queue_workflow.check_outs([tmp_path / "me.mp4" / "a.mp4"])


@pytest.mark.parametrize("change", ["quality", "quality=3", "9.quality=3"])
def test_a_setting_for_nothing_is_refused(change):
    with pytest.raises(queue_workflow.JobFailed, match=r"setting|no node"):
        queue_workflow.fill_in(WORKFLOW, "a", "b", [change])


# --- proxies and networks -------------------------------------------------------------------------------------------


class Flaky(FakeComfy):
    """Answers `statuses` (or breaks the connection at None) to requests for paths that begin with `where`, then works.

    after: whether the request is carried out before its answer is lost.
    """

    def __init__(self, where: str, statuses: list[int | None], after: bool = False, **more):
        super().__init__(**more)
        self.where, self.statuses, self.after = where, list(statuses), after

    def app(self) -> web.Application:
        app = super().app()

        async def unreliable(request, handler):
            if not (f"{request.method} {request.path}".startswith(self.where) and self.statuses):
                return await handler(request)
            if self.after:
                await handler(request)
            status = self.statuses.pop(0)
            if status is None:
                request.transport.abort()
            return web.Response(status=status or 500, text="<html>gateway</html>", headers={"Connection": "close"})

        app.middlewares.append(web.middleware(unreliable))
        return app


@pytest.fixture
def hasty(monkeypatch):
    monkeypatch.setattr(queue_workflow, "FIRST_DELAY", 0.01)
    monkeypatch.setattr(queue_workflow, "POLL_SECONDS", 0.02)


AWAY = [502, 503, 504, None, 502]


@pytest.mark.parametrize(
    "where", ["GET /history", "GET /view", "POST /upload", "GET /prompt", "GET /ws", "POST /prompt"]
)
def test_a_gateway_that_is_away_for_a_moment_costs_no_job(where, jobs, hasty):
    fake, [job] = Flaky(where, AWAY), jobs(1)
    [files], _ = run([fake], [job])
    assert files == [job.out] and job.out.read_bytes() == b"video of talk_00001.mp4"
    assert len(fake.prompts) == 1 and not fake.statuses


def test_following_without_a_socket_survives_a_gateway_that_is_away(jobs, hasty):
    class Dropped(Flaky):
        async def work(self, prompt_id, socket):
            await socket.close()  # the proxy has gone, ComfyUI works on
            self.busy = [prompt_id]
            await asyncio.sleep(0.2)
            self.history[prompt_id] = {
                "outputs": {"3": {"images": [{"filename": "t.mp4", "subfolder": "", "type": "output"}]}},
                "status": {"messages": []},
            }

        async def running(self, request):
            return web.json_response({"queue_running": [[0, name] for name in self.busy], "queue_pending": []})

    [files], _ = run([Dropped("GET /queue", AWAY)], jobs(1))
    assert isinstance(files, list)


def test_a_prompt_whose_answer_was_lost_is_not_queued_twice(jobs, hasty, monkeypatch):
    monkeypatch.setattr(queue_workflow, "QUIET_SECONDS", 0.1)

    class Queued(Flaky):
        async def queue(self, request):
            body = await request.json()
            if not self.prompts:  # as the host does: the caller's id is taken
                self.prompts.append(body["prompt"])
                self.history[body["prompt_id"]] = {
                    "outputs": {"3": {"images": [{"filename": "t.mp4", "subfolder": "", "type": "output"}]}},
                    "status": {"messages": []},
                }
            return web.json_response({"prompt_id": body["prompt_id"], "number": 1, "node_errors": {}})

    fake = Queued("POST /prompt", [504], after=True)
    [files], _ = run([fake], jobs(1))
    assert isinstance(files, list) and len(fake.prompts) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_final_answer_is_final(status, jobs, hasty):
    [result], _ = run([Flaky("POST /prompt", [status] * 9)], jobs(1))
    assert isinstance(result, queue_workflow.JobFailed) and str(status) in str(result)


def test_a_proxy_without_sockets_is_asked_instead(jobs, hasty):
    class NoSockets(Flaky):
        async def queue(self, request):
            body = await request.json()

            class Nobody:
                async def send_json(self, data):
                    pass

            self.sockets[body["client_id"]] = Nobody()
            return await super().queue(web_request(body))

        async def running(self, request):
            waiting = [[0, f"run-{n + 1}"] for n in range(len(self.prompts)) if f"run-{n + 1}" not in self.history]
            return web.json_response({"queue_running": waiting, "queue_pending": []})

    def web_request(body):
        class Request:
            async def json(self):
                return body

        return Request()

    [files], _ = run([NoSockets("GET /ws", [404] * 9)], jobs(1))
    assert isinstance(files, list)


def test_a_server_that_stays_away_gives_its_job_to_another(jobs, hasty, monkeypatch):
    monkeypatch.setattr(queue_workflow, "PATIENCE_SECONDS", 0.05)
    away, lives = Flaky("GET /history", [502] * 10_000), FakeComfy(waiting=5)
    results, said = run([away, lives], jobs(1))
    assert isinstance(results[0], list) and any("Trying another" in line for line in said)


@pytest.mark.parametrize("name", ["ünï cödé 声.png", "a b&c;d=e.png", "100%25.png", 'q"uo\\te.png', "émoji 🎬.png"])
def test_uploads_keep_their_names(name, tmp_path, jobs):
    fake, [job] = FakeComfy(), jobs(1)
    portrait = tmp_path / name
    portrait.write_bytes(b"png")
    run([fake], [queue_workflow.Job(portrait, job.voice, job.out)])
    assert set(fake.uploads) == {name, "0.flac"} and fake.prompts[0]["1"]["inputs"]["image"] == name


def test_a_name_that_no_header_holds_is_sent_all_the_same(tmp_path):
    assert queue_workflow.upload_name(Path("two\nlines\r.png")) == "two_lines_.png"
    assert queue_workflow.upload_name(Path("bytes\udcff.png")) == "bytes?.png"
