"""`--follow`: looks at the input, ranks what is new in a round (`jobs.follow.follower`), waits, and looks again.

A round does what a job does (`jobs.driver.run`): it writes the plan, then parts, then the summary. So a follower may
die anywhere and be started again, and each row still comes out once.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

from rich.console import Console

from jobs import storage
from jobs.driver.resolution import check_store, with_absolute_paths, with_resolved_model, with_surveyed_corpus
from jobs.errors import StoppedError, disk_failures_as_stops, refused_access_as_usage_error
from jobs.follow.follower import FILES_PER_ROUND, Follower
from jobs.follow.ledger import Ledger
from jobs.output.attempts import begin_attempt
from jobs.output.directory import OutputDirectory
from jobs.output.lease import hold_lease
from jobs.runtime.session import session_with_app
from jobs.runtime.signals import InterruptedBySignal, StopRequest, signals_as_requests
from jobs.scoring.app_scorer import app_scorer
from jobs.scoring.scorer import LoadScorer, own_scorer
from jobs.screen import say
from jobs.settings import POLL_SECONDS, RerankSettings
from jobs.storage import check_apart
from jobs.workers.warm_pool import WarmPool
from pipelines.errors import ConfigError

GIVE_UP_SECONDS = 600.0
"""A follower gives up when no look at the input and no round has succeeded for so long."""
LONGEST_PAUSE_SECONDS = 60.0
"""The longest wait between two tries while something fails."""


def follow(
    settings: RerankSettings,
    load_scorer: LoadScorer | None = None,
    console: Console | None = None,
    command: str | None = None,
) -> None:
    """Ranks what is there and what comes, until a signal asks for an end.

    Raises ConfigError and RefusedError as `jobs.driver.run.run`; StoppedError when it failed for GIVE_UP_SECONDS, and
    InterruptedBySignal when files that were taken are not done (the same call goes on).
    """
    console = console or Console()
    with signals_as_requests() as stop, disk_failures_as_stops(), ExitStack() as session:
        if settings.app is not None:
            session.enter_context(session_with_app(settings.address, settings.app, console))
        default = own_scorer if settings.app is None else app_scorer
        with starts_that_are_stopped(stop):
            follow_until(stop, settings, load_scorer or default, console, command)


def follow_until(
    stop: StopRequest,
    settings: RerankSettings,
    load_scorer: LoadScorer,
    console: Console,
    command: str | None = None,
    clock: Callable[[], float] = time.time,
    files_per_round: int = FILES_PER_ROUND,
) -> None:
    """Does what `follow` says until `stop` has a signal; `clock` gives seconds."""
    settings = with_absolute_paths(settings)
    settings, fingerprint = with_resolved_model(settings)
    poll_seconds = settings.poll_seconds or POLL_SECONDS
    output = OutputDirectory(settings.output)
    with ExitStack() as until_the_end:
        with refused_access_as_usage_error():
            settings = checked(settings, console)
            output.create()
            tell = partial(say, console, label="waiting for ", style="yellow")
            lease = until_the_end.enter_context(hold_lease(output.path, tell))
        output.remove_temporaries()
        if settings.overwrite:
            output.clear()
        pool = until_the_end.enter_context(WarmPool(stop, settings.address, console))
        ledger = Ledger(settings, fingerprint, output)
        attempt = begin_attempt(output, command, lease.check)
        follower = Follower(ledger, settings, attempt, pool, load_scorer, console, clock, files_per_round)
        lease.on_heartbeat = follower.save_attempt
        say(console, f"{settings.input}, with a look every {poll_seconds:g} s", "following ", "cyan")
        keep_looking(follower, stop, poll_seconds, console)
        if ledger.todo or not ledger.is_loaded:
            raise InterruptedBySignal(stop.number or signal.SIGTERM)
    say(console, f"{output.path}: every file that was taken is done", "stopped: ", "cyan")


def checked(settings: RerankSettings, console: Console) -> RerankSettings:
    """The settings with what the corpus is now; this follower uses the corpus as it is now until it ends.

    Raises ConfigError for an input to which no file can come, RefusedError for places that overlap.
    """
    if storage.exists(settings.input):
        raise ConfigError(f"INPUT {settings.input} is a file; to follow give a directory, a prefix or a quoted glob")
    files = storage.find_input(settings.input)
    check_apart(settings.input, settings.output, files)
    check_store(settings, files)
    return with_surveyed_corpus(settings, files, console)


@contextmanager
def starts_that_are_stopped(stop: StopRequest) -> Iterator[None]:
    """Turns the exit with which Ray answers a SIGTERM while it starts into an InterruptedBySignal."""
    try:
        yield
    except SystemExit:
        if stop.number is None:
            raise
        raise InterruptedBySignal(stop.number) from None


def keep_looking(follower: Follower, stop: StopRequest, poll_seconds: float, console: Console) -> None:
    """Looks and ranks what is new until a stop is asked for. After a failure it tries again, each time a little later.

    Raises what failed when nothing has succeeded for GIVE_UP_SECONDS.
    """
    pause, failing_since = poll_seconds, None
    while stop.number is None:
        try:
            was_busy = follower.look()
        except (StoppedError, OSError) as error:
            failing_since = follower.clock() if failing_since is None else failing_since
            if follower.clock() - failing_since >= GIVE_UP_SECONDS:
                raise
            say(console, f"{error}; the next try in {pause:.0f} s", "failed: ", "yellow")
            stop.wait(pause)
            pause = min(2 * pause, max(poll_seconds, LONGEST_PAUSE_SECONDS))
        else:
            pause, failing_since = poll_seconds, None
            if not was_busy:
                stop.wait(poll_seconds)
