"""What schemathesis is told about this API beyond its document.

`stage.json` in the working directory (see stage.py) names what must not be taken away from under the examples.
"""

import io
import itertools
import json
import pathlib
import re
import tarfile

import schemathesis
from schemathesis.core.failures import AcceptedNegativeData
from schemathesis.openapi.checks import RejectedPositiveData

STAGE = json.loads(pathlib.Path("stage.json").read_text())

# Ids that operations of a tag get another one for: who revokes its own key, or narrows its own team, tests nothing any more.
SPARED = {
    "keys": {STAGE["keys"]["own"]: STAGE["keys"]["spare"]},
    "teams": {STAGE["teams"][name]: STAGE["teams"]["spare"] for name in ("own", "neighbour", "admin")},
}

# What no schema says: fields, and what is wrong with them. A rejection for anything else is one that the document hides.
FORESEEN = [
    # Bounds that the configuration sets.
    (r"wait|queue|wake|x-sandbox-wake", r"may be \d+ s at most"),
    (r"timeout", r"may be at most \d+ s|must be at least one second"),
    (r"output_limit", r"may be at most \d+ bytes"),
    (r"ttl", r"must lie between 1 and \d+ seconds"),
    (r"mount_envd", r"this gateway has no envd volume configured.*"),
    # Bounds of durations, which are texts.
    (r"timeout|default_timeout|expires_at", r"must lie between (30s|1s) and 24h"),
    (r"idle\.after|idle\.stop_after", r"must be at least 10s"),
    (r"expires_in", r"must be longer than nothing"),
    # Lengths in bytes, where a schema counts characters; names of map entries.
    (r"path|source|destination|files\[\d+\]\.path|collect\[\d+\]", r"must have at most 4095 bytes, .*"),
    (r"path|source|destination|files\[\d+\]\.path|collect\[\d+\]", r"must name a file.*"),
    (r"user", r"must (have 1 to 64 bytes|be a user's name of up to 64 characters).*"),
    (r"(metadata|tags)\..*", r"a (key|value) has .* characters|this prefix is the gateway's own"),
    (r"metadata|tags|env", r"may have up to 64 entries"),
    (r"env.*", r"a (variable's )?name .*"),
    (r".*", r".*\bNUL\b.*"),
    # To JSON Schema 1.0 is an integer.
    (r".*", r"invalid type: floating point `-?[0-9.]+`, expected .*"),
    # Forms are described by their files; no schema closes them.
    (r".*", r"unknown part; known: file"),
    # Lists of words, separated by commas.
    (r"status|outcome|id|type|action|actor", r"must be .*"),
    # What another field, or a header, has to do with it.
    (r"cmd", r"this field is required|either this or `code` is required|must name a program first"),
    (r"code", r"may not stand beside `cmd`"),
    (r"durable", r"is not to be had for a terminal.*"),
    (r"context_id", r"may not stand beside `language`: .*"),
    (r"expires_at", r"may not be given together with `timeout`"),
    (r"to", r"must be later than `from`"),
    (r"follow|after", r"needs `Accept: .*"),
    (r"idle\.stop_after", r"is for the action `pause`"),
    (r"network\..*", r"is required in mode VPC|belongs to mode VPC"),
    (r"mount_envd", r"is for tools of type custom"),
    (r"storage_mounts\[\d+\]\.name", r"each mount needs a name of its own"),
    (r"storage_mounts\[\d+\]\.source", r"unknown variant .*"),
    (r"log\.files\[\d+\]", r"must stand directly under /logs/"),
    (r"files\[\d+\]\.content", r"is not base64"),
    (r"file", r"the path .* is given twice"),
    (r"scopes", r"`.*` is (of no use on a WebSocket|given within the administrators' own team only)"),
    # What is not there, or is not what it is taken for.
    (r"cursor|after|Last-Event-ID", r"is not (a cursor|the id) of .*"),
    (r"upstream", r"there is no upstream of that name"),
    (r"team_ids", r"there is no team .*"),
    (r"instance_id", r"there is no such instance in the key's team"),
    (r"mounts\[\d+\]\.name", r"names no storage mount of the tool"),
    (r"user", r"invalid username: .*"),
    (r"cwd", r"is no directory that the interpreter can enter|cwd '.*' does not exist"),
    (r"port", r"this one is for programs only: .*"),
]

# What takes away what it is about; everything else shares the things of the stage.
ENDING = {"kill_exec", "signal_exec", "close_exec_stdin", "delete_context"}
INSIDE = {"exec": "instance", "files": "instance", "ports": "instance", "code": "interpreter"}

MAX_IDEMPOTENCY_KEY = 255
IDEMPOTENCY_KEY = re.compile(rf"[!-~]{{1,{MAX_IDEMPOTENCY_KEY}}}")
turns = itertools.count(1)
repetitions = itertools.count(1)


@schemathesis.hook
def before_call(context, case, kwargs):
    spare_own(case)
    enter_stage(case)
    renew_idempotency_key(case)


def spare_own(case):
    for tag in case.operation.tags or []:
        spared = SPARED.get(tag, {})
        for name, value in (case.path_parameters or {}).items():
            case.path_parameters[name] = spared.get(value, value)


def enter_stage(case):
    """Calls into instances that are meant well go to the one of the stage, three of four times: made-up ids are unknown."""
    kind = next((INSIDE[tag] for tag in case.operation.tags or [] if tag in INSIDE), None)
    meant_well = case.meta is not None and case.meta.generation.mode.is_positive
    if kind is None or not meant_well or operation_id(case) in ENDING or next(turns) % 4 == 0:
        return
    own = {"id": STAGE["own"][kind], "exec_id": STAGE["own"]["exec"], "context_id": STAGE["own"]["context"]}
    for name in case.path_parameters or {}:
        case.path_parameters[name] = own.get(name, case.path_parameters[name])


def operation_id(case):
    return case.operation.definition.raw.get("operationId")


def renew_idempotency_key(case):
    """A key is good for one request; examples share the few that are likely."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and IDEMPOTENCY_KEY.fullmatch(key):
        suffix = f"-{next(repetitions)}"
        case.headers["Idempotency-Key"] = key[: MAX_IDEMPOTENCY_KEY - len(suffix)] + suffix


@schemathesis.hook
def filter_failure(context, failure, case, response):
    if isinstance(failure, RejectedPositiveData):
        return not foreseen(response)
    if isinstance(failure, AcceptedNegativeData):
        return not absent_body(case, response)
    return True


def foreseen(response):
    if response.status_code != 422:
        return False
    if response.request.method == "HEAD":
        return True  # It has no words; GET of the same has.
    problem = response.json()
    if problem["code"] != "validation_failed":
        return False
    return all(map(is_foreseen, problem.get("errors") or [{"field": "", "message": problem["detail"]}]))


def is_foreseen(error):
    field, message = error["field"], error["message"]
    return any(re.fullmatch(fields, field) and re.fullmatch(messages, message, re.S) for fields, messages in FORESEEN)


def absent_body(case, response):
    """Of raw bytes there may be none: HTTP does not tell a body that is empty from one that is absent."""
    raw = operation_id(case) in ("put_file", "write_exec_stdin")
    return raw and not response.request.body


@schemathesis.serializer("application/x-tar")
def archive(context, value):
    """An archive with one file; what is not bytes is no archive either."""
    content = value if isinstance(value, bytes) else getattr(value, "data", None)
    if not isinstance(content, bytes):
        return b"not an archive"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("file")
        entry.size = len(content)
        tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()
