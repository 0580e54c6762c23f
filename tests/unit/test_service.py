"""A service: what it keeps alive, whose files it takes, which stores it opens, and uploads made by code of the site."""

import errno
import gc
import importlib.metadata
import logging
import os
import tempfile
import threading
import weakref
from urllib.parse import quote

import pytest
from paste.deploy import loadapp
from webob import Request

from tests.support.documents import handed
from tests.support.subjects import PATH, AsgiSubject, FilterSubject, OnLoop
from tests.support.waiting import GUARD, wait_until
from tests.support.wsgi import OCTETS, TUS, call
from tus import Filter, HookReply, Options, Service, Tus, WebobAdapter, open_store, register_store
from tus.apps.front import Front
from tus.apps.operations import Operations
from tus.asgi import TusApp, TusMiddleware
from tus.errors import OptionError, StorageUnavailable, TooLarge, TooManyUploads, UploadGone, UploadNotFound
from tus.handover.spool import Spool
from tus.models import HookType, Outcome, State
from tus.server.service import services_over
from tus.stores import memory
from tus.stores.directory import preparation
from tus.stores.directory.store import DirectoryStore
from tus.stores.memory import MemoryStore
from tus.stores.sweeper import Sweeper

PHOTO = {"Upload-Metadata": "filename YS5qcGc="}


def site(**views):
    """Return a WSGI application whose views make a ``Tus`` from what ``views`` return, by the first part of a path."""

    def application(environ, start_response):
        adapter = WebobAdapter(Request(environ))
        Tus(adapter, **views[environ["PATH_INFO"].split("/")[1]]()).handle()
        return adapter.resp(environ, start_response)

    return application


def create(app, path, size=5, headers=(), **how):
    return call(app, "POST", path, TUS | {"Upload-Length": str(size)} | dict(headers), **how)


def patch(app, url, offset=0, body=b"hello", **how):
    return call(app, "PATCH", url, TUS | OCTETS | {"Upload-Offset": str(offset)}, body, **how)


def head(app, url, **how):
    return call(app, "HEAD", url, TUS, **how)


# -- What is made for a request ends with it ----------------------------------------------------------------------


class Alive:
    """What tests count: the threads of this package, and the directories that are open."""

    def __init__(self):
        self.threads = threading.active_count()
        self.stores = self.count_stores()

    @staticmethod
    def count_stores():
        gc.collect()
        return sum(type(thing) is DirectoryStore for thing in gc.get_objects())

    @property
    def new_threads(self):
        return threading.active_count() - self.threads

    @property
    def new_stores(self):
        return self.count_stores() - self.stores


def named_function(*arguments):
    pass


def as_option(option, function):
    return type("Hooks", (), {"post_create": staticmethod(function)})() if option == "hooks" else function


@pytest.mark.parametrize("option", ["authorize", "on_finished", "hooks"])
def test_functions_of_requests_end_with_them(option, tmp_path):
    closures = []

    def view():
        def closure(*arguments):
            return closures and None

        closures.append(weakref.ref(closure))
        return {"tmp_file_dir": str(tmp_path), option: as_option(option, closure)}

    app, before, services = site(up=view), Alive(), len(services_over(None))
    for _ in range(300):
        assert create(app, "/up").status == 201
    assert before.new_threads <= 1
    assert before.new_stores <= 1
    assert len(services_over(None)) == services, "none is known to the process, and so none can take a file"
    assert [closure for closure in closures if closure() is not None] == []


@pytest.mark.parametrize("options", [{}, {"on_finished": named_function}], ids=["view", "function"])
def test_many_directories_have_one_thread(options, tmp_path):
    numbers = []
    app = site(up=lambda: {"tmp_file_dir": str(tmp_path / str(numbers[-1]))} | options)
    before = Alive()
    for number in [*range(80)] * 3:
        numbers.append(number)
        assert create(app, "/up").status == 201
    assert before.new_threads <= 1
    assert before.new_stores <= 80, "the sweeper needs one for each directory"


@pytest.mark.parametrize("with_spool", [False, True])
def test_options_of_requests_prove_locks_and_links_once(tmp_path, monkeypatch, with_spool):
    proven = []
    locks, links = preparation.check_locks_work, Spool.check_links_from
    monkeypatch.setattr(preparation, "check_locks_work", lambda path: proven.append("locks") or locks(path))
    monkeypatch.setattr(Spool, "check_links_from", lambda spool, path: proven.append("links") or links(spool, path))
    options = {"tmp_file_dir": str(tmp_path / "uploads")} | ({"spool": str(tmp_path / "spool")} if with_spool else {})
    app = site(up=lambda: options)
    for _ in range(5):
        assert head(app, create(app, "/up")["Location"]).status == 200
    assert proven == (["locks", "links"] if with_spool else ["locks"])


@pytest.mark.parametrize("with_spool", [False, True])
def test_requests_with_options_work_in_a_directory_that_is_full(tmp_path, monkeypatch, with_spool):
    """A probe file would need an inode."""

    def fail(*arguments, **others):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    options = {"tmp_file_dir": str(tmp_path / "uploads")} | ({"spool": str(tmp_path / "spool")} if with_spool else {})
    app = site(up=lambda: options)
    url = create(app, "/up")["Location"]
    monkeypatch.setattr(tempfile, "mkstemp", fail)
    monkeypatch.setattr(os, "link", fail)
    assert head(app, url)["Upload-Offset"] == "0"
    assert call(app, "DELETE", url, TUS).status == 204


def test_links_that_do_not_work_are_an_error_each_time(tmp_path, monkeypatch):
    def fail(*arguments):
        raise OptionError("spool", "must be on the same file system")

    monkeypatch.setattr(Spool, "check_links_from", fail)
    app = site(up=lambda: {"tmp_file_dir": str(tmp_path / "uploads"), "spool": str(tmp_path / "spool")})
    for _ in range(2):
        with pytest.raises(OptionError, match="same file system"):
            create(app, "/up")


@pytest.mark.parametrize("store", [{"store": "memory:"}, {"store": "memory:x"}, {"options": "memory:"}])
def test_a_store_in_memory_needs_a_service(store):
    """Each request would find another one, which is empty."""
    if "options" in store:
        store = {"options": Options.build(store="memory:")}
    app = site(up=lambda: store | ({} if "options" in store else {"send_file": True}))
    with pytest.raises(OptionError, match="without a") as caught:
        create(app, "/up")
    assert caught.value.option == "store"
    service = Service(store="memory:", send_file=True, threads=False)
    app = site(up=lambda: {"service": service})
    assert head(app, create(app, "/up")["Location"]).status == 200
    kept = MemoryStore()
    app = site(up=lambda: {"store": kept, "send_file": True, "threads": False})
    assert head(app, create(app, "/up")["Location"]).status == 200


def test_a_store_that_is_given_with_each_request_is_swept(monkeypatch):
    class Counted(MemoryStore):
        __hash__ = None  # as of a dataclass
        sweeps = 0

        def sweep(self, at_most_every=0):
            self.sweeps += 1
            return super().sweep(at_most_every)

    monkeypatch.setattr("tus.stores.sweeper.SHORTEST_INTERVAL", 0.01)
    monkeypatch.setattr("tus.stores.sweeper._directories", sweepers := Sweeper())
    store, before = Counted(), Alive()
    app = site(up=lambda: {"store": store, "send_file": True, "upload_valid_duration": 1})
    for _ in range(3):
        assert create(app, "/up").status == 201
    assert before.new_threads <= 1
    wait_until(lambda: store.sweeps >= 2)
    sweepers.stop()


def test_options_that_were_built_keep_no_function(tmp_path):
    def closure(*arguments):
        pass

    gone = weakref.ref(closure)
    for name in ("authorize", "on_finished", "hooks"):
        Options.build(tmp_file_dir=str(tmp_path), **{name: as_option(name, closure)})
        Options.build_async(tmp_file_dir=str(tmp_path), **{name: as_option(name, closure)})
    del closure
    gc.collect()
    assert gone() is None


def test_a_service_that_nobody_holds_is_gone(tmp_path):
    service = Service(tmp_file_dir=str(tmp_path), on_finished=named_function)
    service.start()
    gone = weakref.ref(service)
    del service
    assert gone() is None
    Service(tmp_file_dir=str(tmp_path), on_finished=print).close()


def threads_of_ours():
    return {thread for thread in threading.enumerate() if thread.name.startswith("tus-")}


def test_closing_a_service_ends_its_threads(tmp_path):
    before = threads_of_ours()
    webhook = {"webhook": "http://localhost:9/", "webhook_events": "post-terminate"}
    service = Service(tmp_file_dir=str(tmp_path), on_finished=named_function, **webhook)
    service.start()
    service.keep_swept()
    ours = threads_of_ours() - before
    kinds = {thread.name.rstrip("-0123456789") for thread in ours}
    assert kinds == {"tus-backlog", "tus-outbox", "tus-sweeper"}
    service.close()
    wait_until(lambda: not any(thread.is_alive() for thread in ours), lambda: f"these do not end: {ours}")


@pytest.mark.parametrize("kind", ["filter", "view"])
def test_events_are_delivered_where_one_request_runs_at_a_time(kind, tmp_path):
    """Nothing else delivers them, and the delivery needs no application."""
    before = threads_of_ours()
    webhook = {"webhook": "http://localhost:9/", "webhook_events": "post-terminate"}
    service = Service(tmp_file_dir=str(tmp_path), upload_path="/up", on_finished=named_function, **webhook)
    app = Filter(named_function, service=service) if kind == "filter" else site(up=lambda: {"service": service})
    assert head(app, f"/up/{'0' * 32}", environ={"wsgi.multithread": False}).status == 404
    names = {thread.name.rstrip("-0123456789") for thread in threads_of_ours() - before}
    assert names == {"tus-outbox"}
    assert head(app, f"/up/{'0' * 32}").status == 404
    names = {thread.name.rstrip("-0123456789") for thread in threads_of_ours() - before}
    assert names == {"tus-outbox", "tus-backlog"}
    service.close()
    wait_until(lambda: threads_of_ours() <= before)


# -- Several services over one directory --------------------------------------------------------------------------


class Receiver:
    """Takes files, or fails."""

    def __init__(self):
        self.taken = []
        self.fails = False

    def __call__(self, upload):
        self.taken.append(upload.text_metadata.get("filename"))
        if self.fails:
            raise RuntimeError("the database is down")


class TwoServices:
    """Two services over one directory, each with a receiver, by a path below the site's root.

    Attributes:
        photos: the receiver of one.
        videos: the receiver of the other.
        services: both services, by name.
    """

    def __init__(self, directory):
        self.photos, self.videos = Receiver(), Receiver()
        self.services = {}
        self.make(str(directory))

    def send(self, name, method, url, headers=(), body=b""):
        raise NotImplementedError

    def create(self, name, headers=()):
        return self.send(name, "POST", f"/{name}", {"Upload-Length": "5"} | dict(headers))

    def patch(self, name, url, offset, body):
        return self.send(name, "PATCH", url, OCTETS | {"Upload-Offset": str(offset)}, body)


class TwoViews(TwoServices):
    """Two views, each with a service."""

    def make(self, directory):
        for name in ("photos", "videos"):
            receiver = getattr(self, name)
            self.services[name] = Service(name=name, tmp_file_dir=directory, on_finished=receiver, threads=False)
        photos, videos = self.services.values()
        self.app = site(photos=lambda: {"service": photos}, videos=lambda: {"service": videos})

    def send(self, name, method, url, headers=(), body=b""):
        return call(self.app, method, url, TUS | dict(headers), body)


class TwoViewsWithOptions(TwoViews):
    """Two views that give their options with each request, so no service is there between them."""

    def make(self, directory):
        def options(name, receiver):
            return {"name": name, "tmp_file_dir": directory, "on_finished": lambda upload: receiver(upload)}

        self.app = site(photos=lambda: options("photos", self.photos), videos=lambda: options("videos", self.videos))


class TwoApps(TwoServices):
    """Two ASGI applications that are mounted in one."""

    def make(self, directory):
        self.apps = {}
        for name in ("photos", "videos"):
            receiver = getattr(self, name)
            app = TusApp(name=name, tmp_file_dir=directory, on_finished=receiver, threads=False)
            self.apps[name], self.services[name] = OnLoop(app, "asyncio"), app.service

    def send(self, name, method, url, headers=(), body=b""):
        return call(self.apps[name], method, url, TUS | dict(headers), body, environ={"SCRIPT_NAME": f"/{name}"})


@pytest.fixture(params=[TwoViews, TwoViewsWithOptions, TwoApps])
def two(request, tmp_path):
    return request.param(tmp_path)


@pytest.fixture
def failed(two):
    """The URL of a photo whose first attempt has failed."""
    two.photos.fails = True
    url = two.create("photos", PHOTO)["Location"]
    assert two.patch("photos", url, 0, b"hello").status == 500
    two.photos.fails = False
    return url


def test_a_failed_file_goes_to_its_own_receiver_by_a_client(two, failed):
    other = two.create("videos")["Location"]
    assert two.patch("videos", other, 0, b"films").status == 204
    assert two.patch("photos", failed, 4, b"o").status == 204
    assert (two.photos.taken, two.videos.taken) == (["a.jpg", "a.jpg"], [None])


def test_a_failed_file_goes_to_its_own_receiver_without_a_client(two, failed, tmp_path):
    if not two.services:
        (upload,) = open_store(str(tmp_path)).list()
        assert (upload.state, upload.attempts, upload.service) == (State.COMPLETE, 1, "photos"), "it waits"
        return
    photos, videos = (two.services[name].backlog for name in ("photos", "videos"))
    assert list(videos.run(everything=True)) == []
    assert two.videos.taken == []
    assert [outcome for _, outcome in photos.run(everything=True)] == [Outcome.ACCEPTED]
    assert two.photos.taken == ["a.jpg", "a.jpg"]


def test_threads_of_services_in_views_offer_only_their_own_files(tmp_path, monkeypatch):
    monkeypatch.setattr("tus.protocols.handover.FIRST_DELAY", 0.05)
    receivers = {"photos": Receiver(), "videos": Receiver()}
    services = {
        name: Service(name=name, tmp_file_dir=str(tmp_path), on_finished=receiver)
        for name, receiver in receivers.items()
    }
    app = site(photos=lambda: {"service": services["photos"]}, videos=lambda: {"service": services["videos"]})
    receivers["photos"].fails = True
    url = create(app, "/photos", headers=PHOTO)["Location"]
    assert patch(app, url).status == 500
    assert create(app, "/videos").status == 201
    services["videos"].backlog.look()
    wait_until(lambda: len(receivers["photos"].taken) > 2)
    receivers["photos"].fails = False
    wait_until(lambda: services["photos"].find(url).state == State.ACCEPTED)
    assert receivers["videos"].taken == []
    for service in services.values():
        service.close()


def test_several_first_requests_start_one_thread(tmp_path):
    before = set(threading.enumerate())
    for _ in range(50):
        service = Service(tmp_file_dir=str(tmp_path), on_finished=named_function)
        barrier = threading.Barrier(8)

        def start(service=service, barrier=barrier):
            barrier.wait(GUARD)
            service.start()

        requests = [threading.Thread(target=start) for _ in range(8)]
        for request in requests:
            request.start()
        for request in requests:
            request.join(GUARD)
        backlogs = {thread for thread in threading.enumerate() if thread.name == "tus-backlog"} - before
        assert len(backlogs) == 1
        service.close()
        wait_until(lambda backlogs=backlogs: not any(thread.is_alive() for thread in backlogs))


def test_no_thread_of_a_view_where_one_request_runs_at_a_time(tmp_path):
    service = Service(tmp_file_dir=str(tmp_path), on_finished=named_function)
    app = site(up=lambda: {"service": service})

    def backlogs():
        return {thread for thread in threading.enumerate() if thread.name == "tus-backlog"}

    before = backlogs()
    url = create(app, "/up", environ={"wsgi.multithread": False})["Location"]
    assert patch(app, url, environ={"wsgi.multithread": False}).status == 204
    assert backlogs() <= before
    assert head(app, url).status == 200
    assert len(backlogs() - before) == 1
    service.close()
    wait_until(lambda: backlogs() <= before)


def test_the_url_of_another_service_is_unknown(two, failed):
    foreign = failed.replace("/photos", "/videos")
    assert foreign != failed
    assert two.send("videos", "HEAD", foreign).status == 404
    assert two.patch("videos", foreign, 4, b"o").status == 404
    assert two.send("videos", "DELETE", foreign).status == 404
    part = two.create("photos", {"Upload-Concat": "partial"})["Location"]
    assert two.patch("photos", part, 0, b"parts").status == 204
    final = {"Upload-Concat": f"final;{part.replace('/photos', '/videos')}"}
    assert two.send("videos", "POST", "/videos", final).status == 404
    assert two.send("photos", "POST", "/photos", {"Upload-Concat": f"final;{part}"}).status == 201
    assert two.photos.taken == ["a.jpg", None]
    assert two.videos.taken == []
    assert two.send("photos", "HEAD", failed).status == 200
    for name, service in two.services.items():
        assert (service.find(failed) is None) == (name == "videos")
        assert [upload.service for upload in service.list() if upload.id in failed] == ["photos"] * (name == "photos")


def test_the_file_of_one_request_never_goes_to_the_function_of_another(tmp_path):
    """Each request's function knows its user, who must not get the file of another one."""
    log, user, fails = [], ["ann"], [True]

    def view():
        mine = user[0]

        def on_finished(upload):
            log.append((mine, upload.text_metadata["filename"]))
            if fails[0]:
                raise RuntimeError("the database is down")

        return {"tmp_file_dir": str(tmp_path), "on_finished": on_finished}

    app = site(up=view)
    url = create(app, "/up", headers=PHOTO)["Location"]
    assert patch(app, url).status == 500
    user[0], fails[0] = "bob", False
    assert patch(app, create(app, "/up", headers={"Upload-Metadata": "filename Yg=="})["Location"]).status == 204
    (waiting,) = (upload for upload in open_store(str(tmp_path)).list() if upload.is_pending)
    assert waiting.id == url.rpartition("/")[2]
    user[0] = "ann"
    assert patch(app, url, 4, b"o").status == 204
    assert log == [("ann", "a.jpg"), ("bob", "b"), ("ann", "a.jpg")]


def test_two_services_of_one_name_must_have_one_receiver(tmp_path):
    first = Service(tmp_file_dir=str(tmp_path), on_finished=named_function)
    for others in ({"on_finished": print}, {}, {"spool": str(tmp_path / "spool")}):
        with pytest.raises(OptionError, match="give each service its own name") as caught:
            Service(tmp_file_dir=f"{tmp_path}/../{tmp_path.name}", **others)
        assert caught.value.option == "name"
    with pytest.raises(OptionError, match="name"):
        TusApp(tmp_file_dir=str(tmp_path), on_finished=print)
    same = Service(tmp_file_dir=str(tmp_path), on_finished=named_function)
    named = Service(tmp_file_dir=str(tmp_path), on_finished=print, name="other")
    elsewhere = Service(tmp_file_dir=str(tmp_path / "elsewhere"), on_finished=print)
    same.close()
    first.close()
    Service(tmp_file_dir=str(tmp_path), on_finished=print).close()
    named.close()
    elsewhere.close()


def test_two_services_over_one_store_in_memory(tmp_path):
    store = MemoryStore()
    first = Service(store=store, on_finished=named_function)
    with pytest.raises(OptionError, match="name"):
        Service(store=store, on_finished=print)
    Service(store=MemoryStore(), on_finished=print)
    first.close()
    Service(store=store, on_finished=print)


def test_two_filters_with_one_path_over_one_directory(tmp_path):
    """As where one process serves two copies of a pipeline."""
    first = FilterSubject(tmp_file_dir=str(tmp_path))
    second = FilterSubject(tmp_file_dir=str(tmp_path))
    url = first.url(5)
    assert second.patch(url, 0, b"hello").status == 204
    assert (first.landed, len(second.landed)) == ([], 1)


@pytest.mark.parametrize("two", [TwoViews, TwoApps], indirect=True)
def test_the_log_names_services_whose_files_wait_once(two, failed, caplog):
    videos = two.services["videos"].backlog
    with caplog.at_level(logging.INFO, "tus.handover.backlog"):
        videos.look()
        videos.look()
        two.services["photos"].backlog.look()
    (record,) = caplog.records
    assert "'photos'" in record.getMessage()
    assert "'videos'" in record.getMessage()


# -- Stores that fail ---------------------------------------------------------------------------------------------


class BotoError(Exception):
    """What the library of a medium raises."""


class FailingStore(MemoryStore):
    """A store whose methods fail that are named."""

    failing = ()

    def __getattribute__(self, name):
        if name in object.__getattribute__(self, "failing"):
            raise BotoError("/secret/bucket cannot be reached")
        return super().__getattribute__(name)


def fail_at(subject, url, failing):
    """Send the requests that need a method of the store, and yield the replies."""
    if failing == "create":
        yield subject.create(5)
    elif failing == "append":
        yield subject.patch(url, 0, b"he")
    elif failing == "claim":
        yield subject.patch(url, 5)
    elif failing == "remove":
        yield subject.send("DELETE", url)
    else:
        yield subject.patch(url, 0, b"hello")
        yield subject.send("DELETE", url)
        yield subject.head(url)


@pytest.mark.parametrize("kind", [FilterSubject, AsgiSubject])
@pytest.mark.parametrize("failing", ["create", "load", "append", "claim", "remove"])
def test_a_store_that_raises_foreign_exceptions(kind, failing, caplog):
    store = FailingStore()
    subject = kind(store=store, upload_path=PATH, send_file=True)
    url = subject.url(5)
    if failing == "claim":
        subject.fail = "503 Service Unavailable"
        assert subject.patch(url, 0, b"hello").status == 503
    store.failing = (failing,)
    replies = list(fail_at(subject, url, failing))
    statuses = [503, 503, 423] if failing == "load" else [503]  # after 503 to HEAD some clients start again
    assert [reply.status for reply in replies] == statuses
    for reply in replies:
        assert reply["Tus-Resumable"] == "1.0.0"
        assert b"bucket" not in reply.body
    assert "bucket" in caplog.text
    store.failing = ()
    assert subject.head(url).status == 200


# -- Where a store is given ---------------------------------------------------------------------------------------


def view_over(**options):
    return site(files=lambda: options)


def faces(**store):
    """Everything that takes a store, as an application that serves :data:`PATH`."""
    service = Service(send_file=True, **store)
    return {
        "Filter": lambda: FilterSubject(**store).app,
        "TusMiddleware": lambda: AsgiSubject(**store).app,
        "TusApp": lambda: OnLoop(TusApp(on_finished=named_function, **store), "asyncio"),
        "Tus": lambda: view_over(send_file=True, **store),
        "Service": lambda: view_over(service=service),
    }


@pytest.mark.parametrize("face", ["Filter", "TusMiddleware", "TusApp", "Tus", "Service"])
@pytest.mark.parametrize("kind", ["object", "url"])
def test_every_face_takes_a_store(face, kind, tmp_path):
    stores = []
    register_store("remembered", lambda url, options: stores.append(MemoryStore()) or stores[-1])
    store = MemoryStore() if kind == "object" else "remembered:"
    environ = {"SCRIPT_NAME": PATH} if face == "TusApp" else {}
    app = faces(store=store)[face]()
    url = call(app, "POST", PATH, TUS | {"Upload-Length": "5"}, environ=environ)["Location"]
    used = [store] if kind == "object" else stores
    assert [upload.id for found in used for upload in found.list()] == [url.rpartition("/")[2]]
    if kind == "object":
        assert head(app, url, environ=environ)["Upload-Offset"] == "0"


def test_an_ini_file_takes_a_store(tmp_path):
    (tmp_path / "site.ini").write_text(
        "[pipeline:main]\npipeline = operations tus app\n"
        "[app:app]\npaste.app_factory = tests.support.documents:application_factory\n"
        "[filter:operations]\nuse = egg:tus#operations\nstore = memory:\nhealth_path = /health\n"
        f"[filter:tus]\nuse = egg:tus#main\nupload_path = {PATH}\nstore = memory:\nsend_file = true\n"
    )
    app = loadapp(f"config:{tmp_path}/site.ini")
    assert call(app, "GET", "/health").status == 200
    url = create(app, PATH)["Location"]
    handed.clear()
    assert patch(app, url).status == 204
    assert handed == [b"hello"]
    handed.clear()


def test_operations_take_a_store():
    health = call(Front(FilterSubject(store="memory:").app, Operations(MemoryStore())), "GET", "/health")
    assert health.status == 200
    assert call(Front(FilterSubject(store="memory:").app, Operations("memory:")), "GET", "/health").status == 200


def test_a_store_by_its_url(tmp_path):
    for url in (str(tmp_path / "path"), f"file:{tmp_path}/url", f"file://{tmp_path}/slashes"):
        store = open_store(url)
        assert isinstance(store, DirectoryStore)
        assert store.directory == str(tmp_path / url.rpartition("/")[2])
    assert isinstance(open_store("memory:"), MemoryStore)
    assert Service(store=f"file:{tmp_path}/service").directory == str(tmp_path / "service")
    seen = []
    register_store("mine", lambda url, options: seen.append((url, options.fsync)) or MemoryStore())
    assert isinstance(Service(store="mine://host/bucket?a=b", fsync="always").store, memory.MemoryStore)
    assert seen == [("mine://host/bucket?a=b", "always")]


def test_a_store_of_another_package(tmp_path, monkeypatch):
    """One that is installed as pip installs it: a module, and a directory that has its metadata."""
    (tmp_path / "ftp_store.py").write_text(
        "from tus.stores.memory import MemoryStore\n\n\nclass FtpStore(MemoryStore):\n    pass\n\n\n"
        "def open_ftp(url, options):\n    store = FtpStore(lifetime=options.upload_valid_duration)\n"
        "    store.url = url\n    return store\n"
    )
    metadata = tmp_path / "ftp_store-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: ftp-store\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[tus.stores]\nftp = ftp_store:open_ftp\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert importlib.metadata.version("ftp-store") == "1.0"
    store = FilterSubject(store="ftp://host/files").app.service.store
    assert (type(store).__name__, store.url) == ("FtpStore", "ftp://host/files")
    with pytest.raises(OptionError, match=r"file, .*\bftp, .*memory.*'sftp'") as caught:
        Service(store="sftp://host/files")
    assert caught.value.option == "store"


def test_a_store_is_required():
    with pytest.raises(OptionError, match="required") as caught:
        Filter(named_function, upload_path=PATH)
    assert caught.value.option == "tmp_file_dir"


# -- What a store without files cannot do -------------------------------------------------------------------------


def asgi_application(scope, receive, send):
    raise AssertionError("it is not called")


@pytest.mark.parametrize("face", [Filter, TusMiddleware])
def test_an_application_cannot_get_the_path_of_no_file(face, tmp_path):
    app = named_function if face is Filter else asgi_application
    for store in (MemoryStore, lambda: "memory:"):
        with pytest.raises(OptionError, match=r"must be true.*keeps no files") as caught:
            face(app, upload_path=PATH, store=store())
        assert caught.value.option == "send_file"
        face(app, upload_path=PATH, store=store(), send_file=True)
        face(app, upload_path=PATH, store=store(), on_finished=named_function)


def test_a_view_cannot_get_the_path_of_no_file(tmp_path):
    service = Service(store="memory:")
    with pytest.raises(OptionError, match="send_file"):
        Tus(WebobAdapter(Request.blank("/")), service=service)
    finished = []

    def view(environ, start_response):
        adapter = WebobAdapter(Request(environ))
        with Tus(adapter, store=service.store, send_file=True) as tus:
            tus.handle()
            if tus.upload_finished:
                with pytest.raises(OptionError, match="send_file = true") as caught:
                    tus.get_filepath()
                finished.append((caught.value.option, adapter.stream.read(5)))
                tus.cleanup_file()
        return adapter.resp(environ, start_response)

    assert patch(view, create(view, "/up")["Location"]).status == 204
    assert finished == [("store", b"hello")]


def test_a_spool_and_a_webhook_need_a_directory(tmp_path):
    with pytest.raises(OptionError, match="keeps files") as caught:
        Service(store="memory:", spool=str(tmp_path / "spool"))
    assert caught.value.option == "spool"
    with pytest.raises(OptionError, match="webhook") as caught:
        Service(store="memory:", webhook="http://localhost/", on_finished=named_function)
    assert caught.value.option == "tmp_file_dir"
    webhook = {"webhook": "http://localhost/", "on_finished": named_function, "threads": False}
    Service(store="memory:", tmp_file_dir=str(tmp_path), **webhook)


def test_free_space_needs_a_directory():
    with pytest.raises(OptionError, match="only with a directory") as caught:
        Service(store="memory:", keep_free=1)
    assert caught.value.option == "keep_free"


def test_memory_has_limits_too():
    service = Service(store="memory:", send_file=True, threads=False, max_uploads=1, max_total_size=5)
    with pytest.raises(TooLarge):
        service.create_upload(length=6)
    service.create_upload(length=5)
    with pytest.raises(TooManyUploads):
        service.create_upload(length=0)


# -- Uploads that code of the site makes, finds and cancels -------------------------------------------------------


class Hooks:
    """Remembers its calls."""

    def __init__(self):
        self.calls = []

    def pre_create(self, event):
        self.calls.append(("pre_create", None))
        return HookReply(reject=True)

    def post_create(self, event):
        self.calls.append(("post_create", event.upload.id))

    def post_terminate(self, event):
        self.calls.append(("post_terminate", event.upload.id))


@pytest.fixture(params=["directory", "memory"])
def store_options(request, tmp_path):
    return {"tmp_file_dir": str(tmp_path)} if request.param == "directory" else {"store": "memory:"}


def test_an_upload_made_by_the_site(store_options):
    receiver = Receiver()
    service = Service(on_finished=receiver, threads=False, upload_path="/up", **store_options)
    app = Filter(named_function, service=service)
    upload = service.create_upload(length=5, metadata={"filename": "naïve.txt", "empty": ""})
    assert (upload.offset, upload.length, upload.service) == (0, 5, "/up")
    assert upload.text_metadata == {"filename": "naïve.txt", "empty": ""}
    assert service.url_of(upload) == f"/up/{upload.id}"
    assert head(app, service.url_of(upload))["Upload-Length"] == "5"
    assert patch(app, service.url_of(upload)).status == 204
    assert receiver.taken == ["naïve.txt"]
    assert service.find(service.url_of(upload)).state == State.ACCEPTED
    unknown = service.create_upload()
    assert head(app, service.url_of(unknown))["Upload-Defer-Length"] == "1"
    with pytest.raises(ValueError, match="negative"):
        service.create_upload(length=-1)
    with pytest.raises(ValueError, match="negative"):
        service.create_upload(expires=-1)


def test_an_empty_upload_is_handed_over(store_options):
    receiver = Receiver()
    service = Service(on_finished=receiver, threads=False, handover="background", **store_options)
    upload = service.create_upload(length=0)
    assert upload.is_complete
    assert [outcome for _, outcome in service.backlog.run()] == [Outcome.ACCEPTED]


def test_an_upload_made_for_a_principal(store_options):
    service = Service(threads=False, upload_path="/up", send_file=True, **store_options)
    for value in (False, True, "", b"7", 7.0):
        for function in (service.find, service.list, service.create_upload):
            with pytest.raises(ValueError, match="a principal must be"):
                function(*["0" * 32] * (function == service.find), principal=value)
    upload = service.create_upload(length=5, principal=7)
    app = site(up=lambda: {"service": service, "principal": user[0]})
    for user in ([None], ["8"]):
        assert head(app, f"/up/{upload.id}").status == 404
        assert service.find(upload.id, principal=user[0]) is None
    user = ["7"]
    assert head(app, f"/up/{upload.id}").status == 200
    assert service.find(upload.id, principal=7).id == upload.id
    other = service.create_upload(length=5)
    assert {found.id for found in service.list()} == {upload.id, other.id}
    assert [found.id for found in service.list(principal=7)] == [upload.id]


def test_when_an_upload_made_by_the_site_expires(store_options):
    service = Service(threads=False, upload_path="/up", upload_valid_duration=60, send_file=True, **store_options)
    app = Filter(named_function, service=service)
    soon = service.create_upload(length=5, expires=0)
    late = service.create_upload(length=5, expires=3600)
    usual = service.create_upload(length=5)
    assert 3590 < late.expires_at - late.created_at < 3610
    assert 50 < usual.expires_at - usual.created_at < 70
    assert service.store.load(late.id).expires_at == pytest.approx(late.expires_at)
    assert service.store.sweep() == 1
    assert service.find(soon.id) is None
    assert patch(app, service.url_of(late), 0, b"he").status == 204
    grown = service.find(late.id)
    assert grown.expires_at - grown.created_at < 120, "from the first byte on, the lifetime of the service counts"


def test_limits_count_uploads_made_by_the_site(tmp_path):
    service = Service(tmp_file_dir=str(tmp_path), threads=False, max_uploads_per_principal=1, max_size=10)
    service.create_upload(length=5, principal="ann")
    service.create_upload(length=5, principal="bob")
    with pytest.raises(TooManyUploads):
        service.create_upload(length=5, principal="ann")
    with pytest.raises(TooLarge):
        service.create_upload(length=11, principal="cid")
    assert len(list(service.list())) == 2


def test_hooks_see_uploads_made_by_the_site(store_options):
    hooks = Hooks()
    service = Service(threads=False, hooks=hooks, **store_options)
    upload = service.create_upload(length=5)
    service.cancel(upload)
    assert hooks.calls == [("post_create", upload.id), ("post_terminate", upload.id)]


def test_an_upload_that_the_site_cancels(store_options):
    service = Service(threads=False, upload_path="/up", send_file=True, **store_options)
    app = Filter(named_function, service=service)
    upload = service.create_upload(length=5)
    assert patch(app, service.url_of(upload), 0, b"he").status == 204
    service.cancel(upload)
    assert service.find(upload.id) is None
    assert patch(app, service.url_of(upload), 2, b"llo").status in (404, 410)
    with pytest.raises(UploadNotFound):
        service.cancel(upload)


@pytest.mark.parametrize(
    "form",
    ["{id}", "/up/{id}", "http://localhost/up/{id}", "https://other.example/up/{id}?a=b#c", "/up/{id}/"],
)
def test_what_a_form_posts_is_found(form, store_options):
    service = Service(threads=False, upload_path="/up", send_file=True, **store_options)
    upload = service.create_upload(length=5)
    assert service.find(form.format(id=upload.id)).id == upload.id


@pytest.mark.parametrize(
    "form",
    ["", "/", "x", "/down/{id}", "/up/x/{id}", "/up/{id}x", "/up/../{id}", "http://[", "{id}/../{id}", "/up/{upper}"],
)
def test_what_a_form_posts_is_not_believed(form, store_options):
    service = Service(threads=False, upload_path="/up", send_file=True, **store_options)
    upload = service.create_upload(length=5)
    assert service.find(form.format(id=upload.id, upper=upload.id.upper() + "A")) is None


def test_urls_need_a_path(tmp_path):
    service = Service(tmp_file_dir=str(tmp_path), threads=False)
    upload = service.create_upload(length=5)
    with pytest.raises(OptionError, match="upload_path"):
        service.url_of(upload)
    assert service.find(f"/anywhere/{upload.id}").id == upload.id
    absolute = Service(tmp_file_dir=str(tmp_path), upload_path="/up", base_url="https://example.org", threads=False)
    assert absolute.url_of(upload) == f"https://example.org/up/{upload.id}"


@pytest.mark.parametrize("path", ["/hoch laden/ä", "/a%20b", "/a/b"])
def test_urls_are_encoded(path, store_options):
    service = Service(threads=False, upload_path=path, send_file=True, **store_options)
    app = Filter(named_function, service=service)
    upload = service.create_upload(length=5)
    url = service.url_of(upload)
    assert url.isascii()
    assert not set(url) & set(" ?#")
    assert head(app, url).status == 200
    assert service.find(url).id == upload.id
    assert service.find(create(app, quote(path))["Location"]) is not None


# -- Functions that are async ------------------------------------------------------------------------------------


async def later(*arguments):
    pass


ASYNC = ["authorize", "on_finished", *(f"hooks.{hook.method}" for hook in HookType)]


def async_options(option, path):
    """Return the options with a function or a hook method that is async."""
    name, _, method = option.partition(".")
    value = type("Hooks", (), {method: staticmethod(later)})() if method else later
    return {"tmp_file_dir": str(path), name: value}


@pytest.mark.parametrize("option", ASYNC)
def test_a_service_refuses_what_is_async(option, tmp_path):
    """A synchronous face would take a coroutine for an answer, and never run it."""
    values = async_options(option, tmp_path)
    with pytest.raises(OptionError, match="TusMiddleware or TusApp") as caught:
        Service(options=Options.build_async(**values))
    assert caught.value.option == option.partition(".")[0]
    with pytest.raises(OptionError) as caught:
        Service(**values)
    assert caught.value.option == option.partition(".")[0]


@pytest.mark.parametrize("option", ASYNC)
def test_asgi_takes_what_is_async(option, tmp_path):
    values = async_options(option, tmp_path)
    TusMiddleware(asgi_application, upload_path="/up", **values).service.close()
    if option == "on_finished":
        TusApp(**values).service.close()
    else:
        TusApp(**values, on_finished=later).service.close()


def test_a_store_that_fails_is_no_missing_upload():
    store = FailingStore()
    service = Service(store=store, threads=False)
    upload = service.create_upload(length=5)
    store.failing = ("load",)
    with pytest.raises(StorageUnavailable):
        service.find(upload.id)


def test_a_site_saves_a_kept_file(tmp_path):
    (tmp_path / "arrived").mkdir()
    for store in ({"tmp_file_dir": str(tmp_path / "uploads")}, {"store": MemoryStore(keep_finished=True)}):
        service = Service(upload_path=PATH, on_finished=repr, keep_finished=True, threads=False, **store)
        app = Filter(named_function, service=service)
        unfinished = service.create_upload(length=5)
        with pytest.raises(ValueError, match="not complete"):
            service.save_to(unfinished, tmp_path / "arrived")
        url = create(app, PATH, 5, PHOTO)["Location"]
        assert patch(app, url).status == 204
        upload = service.find(url)
        paths = [service.save_to(upload, tmp_path / "arrived") for _ in range(2)]
        assert paths[0] == paths[1]
        service.cancel(upload)
        with open(paths[0], "rb") as file:
            assert file.read() == b"hello"
        with pytest.raises((UploadGone, UploadNotFound)):
            service.save_to(upload, tmp_path / "arrived", "other.jpg")
        os.unlink(paths[0])
        service.close()
    assert os.listdir(tmp_path / "arrived") == []
