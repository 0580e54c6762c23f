"""The threads that make the calls of one event loop."""

import contextvars
import gc
import threading
from functools import partial

import anyio
import pytest

from tests.support.waiting import GUARD, wait_until
from tus.server.threads import Threads

NAME = "tus-test-threads"


@pytest.fixture(params=["asyncio", "trio"])
def backend(request):
    return request.param


def run(backend, function):
    async def guarded():
        with anyio.fail_after(GUARD):
            return await function()

    return anyio.run(guarded, backend=backend)


def running():
    return [thread for thread in threading.enumerate() if thread.name == NAME]


def fail(kind):
    raise kind("no")


def test_a_call_returns_what_the_function_returns(backend):
    async def call():
        return await Threads(NAME, lambda: 2).run(lambda: threading.current_thread())

    assert run(backend, call) is not threading.main_thread()


@pytest.mark.parametrize("kind", [ValueError, KeyboardInterrupt, SystemExit])
def test_an_exception_is_raised_where_the_call_was_made(kind):
    async def call():
        threads = Threads(NAME, lambda: 1)
        with pytest.raises(kind, match="no"):
            await threads.run(partial(fail, kind))
        return await threads.run(lambda: "the thread goes on")

    assert run("asyncio", call) == "the thread goes on"


def test_a_stop_iteration_becomes_another_error(backend):
    async def call():
        with pytest.raises(RuntimeError):
            await Threads(NAME, lambda: 1).run(partial(next, iter(())))

    run(backend, call)


def test_the_context_of_the_task_is_that_of_the_call(backend):
    variable = contextvars.ContextVar("variable")

    async def call():
        variable.set("of the task")
        return await Threads(NAME, lambda: 1).run(variable.get)

    assert run(backend, call) == "of the task"


def test_each_of_many_calls_has_its_own_result(backend):
    async def call():
        threads, results = Threads(NAME, lambda: 4), {}

        async def one(number):
            results[number] = await threads.run(lambda: number)

        for _ in range(20):
            async with anyio.create_task_group() as group:
                for number in range(100):
                    group.start_soon(one, number)
        return results

    assert run(backend, call) == {number: number for number in range(100)}


def test_as_many_calls_as_threads_run_at_a_time(backend):
    everyone = threading.Barrier(4)  # three calls and the test
    most, now, lock = 0, 0, threading.Lock()

    def work():
        nonlocal most, now
        with lock:
            now += 1
            most = max(most, now)
        everyone.wait(GUARD)
        with lock:
            now -= 1

    async def call():
        threads = Threads(NAME, lambda: 3)
        async with anyio.create_task_group() as group:
            for _ in range(6):
                group.start_soon(threads.run, work)
            for _ in range(2):
                await anyio.to_thread.run_sync(everyone.wait)

    run(backend, call)
    assert most == 3


def test_a_thread_is_used_again():
    async def call():
        threads = Threads(NAME, lambda: 8)
        return {await threads.run(threading.get_ident) for _ in range(50)}

    assert len(run("asyncio", call)) == 1


@pytest.mark.parametrize("has_threads", [True, False])
def test_the_system_may_have_no_more_threads(monkeypatch, has_threads):
    """Then those that there are take the call; without any, it fails, and the next one may succeed."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    async def call():
        threads = Threads(NAME, lambda: 8)
        if has_threads:
            await threads.run(lambda: None)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            if has_threads:
                async with anyio.create_task_group() as group:
                    for _ in range(3):
                        group.start_soon(threads.run, lambda: None)
            else:
                with pytest.raises(RuntimeError):
                    await threads.run(lambda: None)
        return await threads.run(lambda: "it goes on")

    assert run("asyncio", call) == "it goes on"


def test_a_task_that_is_cancelled_waits_for_the_end_of_its_call(backend):
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work():
        begun.set()
        go_on.wait(GUARD)
        ended.set()

    async def call():
        threads = Threads(NAME, lambda: 1)
        async with anyio.create_task_group() as group:
            group.start_soon(threads.run, work)
            await anyio.to_thread.run_sync(begun.wait)
            group.cancel_scope.cancel()
            go_on.set()
        return ended.is_set()

    assert run(backend, call)


def test_the_threads_end_once_the_loop_is_gone():
    async def call():
        threads = Threads(NAME, lambda: 2)
        await threads.run(lambda: None)
        return running()

    gc.collect()
    wait_until(lambda: not running(), "threads of other tests go on")
    assert run("asyncio", call)
    gc.collect()
    wait_until(lambda: not running(), "the threads go on without their loop")


def test_a_result_for_a_closed_loop_is_dropped():
    """A task that the loop itself has cancelled twice waits for nothing."""
    go_on, ended = threading.Event(), threading.Event()

    def work():
        go_on.wait(GUARD)
        ended.set()
        return "nobody waits for it"

    async def call():
        import asyncio

        task = asyncio.create_task(Threads(NAME, lambda: 1).run(work))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        task.cancel()  # so it waits for the end of the call
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    run("asyncio", call)
    assert not ended.is_set()
    go_on.set()
    assert ended.wait(GUARD)
    gc.collect()
    wait_until(lambda: not running(), "the thread has not ended in order")
