"""CONTRACT's table: command lines, exit codes, stdout and stderr, on three real nodes.

A row is a claim about one command line. Rows do not depend on each other: what they read is written
once, by `stock`, under keys no row writes.
"""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from kvctl import Client, cli
from tests.conftest import Kvctl, Ran, eventually

Predicate = Callable[[Ran], object]
CONTEXT = re.compile(r"c1\.[A-Za-z0-9_-]+")
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
GET_FIELDS = {"schema", "key", "key_encoding", "found", "value", "encoding", "siblings", "context", "story"}
ERROR_FIELDS = {"schema", "error", "exit", "message", "hint", "applied", "acked"}
STATUS_FIELDS = {"schema", "cluster", "epoch", "epoch_agreed", "n", "q", "nodes", "needs_repair", "margin"}
NODE_FIELDS = {
    "id", "address", "state", "member", "partitions", "primaries", "keys", "bytes", "hints_held", "hints_for_it",
    "p99_ms", "phi", "suspected_by", "uptime_s", "faults", "pid",
}  # fmt: skip
NOWHERE = ("--connect", "127.0.0.1:1")


class Row(NamedTuple):
    """A command line and what must come of it."""

    args: str | tuple[str | bytes, ...]
    """Split at spaces; `{name}` stands for something `stock` has made."""
    code: int = 0
    out: Predicate = lambda ran: True
    err: Predicate = lambda ran: b"Traceback" not in ran.err
    stdin: bytes = b""


def silent(ran: Ran) -> bool:
    return ran.out == b""


def says(*parts: str) -> Predicate:
    return lambda ran: all(part in ran.errors for part in parts)


def prints(raw: bytes) -> Predicate:
    return lambda ran: ran.out == raw


def error(name: str, code: int, **fields: Any) -> Predicate:
    def holds(ran: Ran) -> bool:
        told = ran.error
        assert told.keys() >= ERROR_FIELDS, told
        assert told["schema"] == "kvctl.error/v1"
        return (told["error"], told["exit"]) == (name, code) and all(told[k] == v for k, v in fields.items())

    return holds


def data(schema: str, check: Callable[[Any], object] = lambda d: True) -> Predicate:
    def holds(ran: Ran) -> object:
        value = ran.json
        assert value["schema"] == f"kvctl.{schema}/v1", value
        assert list(value) == sorted(value), "JSON keys are sorted"
        return check(value)

    return holds


def got(**fields: Any) -> Predicate:
    def check(value: Any) -> bool:
        assert value.keys() >= GET_FIELDS, value.keys()
        assert CONTEXT.fullmatch(value["context"])
        for sibling in value["siblings"]:
            actor, time = sibling["dot"]
            assert re.fullmatch(r"[0-9a-f]{16}", actor)
            assert time.isdecimal()
            assert TIME.fullmatch(sibling["written_at"])
        return all(value[k] == v for k, v in fields.items())

    return data("get", check)


def storied(value: Any) -> bool:
    story = value["story"]
    wanted = "coordinator mode epoch partition owners answers hinted repaired strict took_ms"
    assert story.keys() >= set(wanted.split()), story.keys()
    assert len(story["owners"]) == 3
    assert all({"node", "kind", "ok", "ms"} <= a.keys() for a in story["answers"])
    return bool(story["coordinator"] in story["owners"])


def via(node: str) -> Predicate:
    return data("get", lambda value: value["story"]["coordinator"] == node)


def written(value: Any) -> bool:
    assert value.keys() >= {"key", "key_encoding", "acked", "w", "context", "story"}
    return bool(CONTEXT.fullmatch(value["context"])) and value["acked"] >= value["w"] and storied(value)


@pytest.fixture(scope="module")
def stock(three: Kvctl) -> dict[str, str]:
    """What the rows read."""
    made = {}
    with Client(",".join(n["address"] for n in three("status", "-o", "json").json["nodes"])) as kv:
        made["one"] = kv.put("one", b"milk", w="all").context
        kv.put("raw", b"\xff\x00\n", w="all")
        kv.put("loud", "\x1b[31mred\u202e".encode(), w="all")
        kv.put(b"ke\x1by", b"v", w="all")
        kv.put(b"bin\xff", b"v", w="all")
        kv.put("empty", b"", w="all")
        before = kv.put("two", b"tea", w="all").context
        for each in (b"tea,eggs", b"tea,jam"):
            kv.put("two", each, context=before, w="all")
        kv.put("gone", b"x", w="all")
        kv.delete("gone", w="all")
        for i in range(12):
            kv.put(f"list:{i:02}", b"v%d" % i, w="all")
        kv.put("timed", b"soon", ttl=1000, w="all")
        kv.put("s:0", b"v", mode="strong")
        kv.put("s:3", b"v", mode="strong")
        kv.delete("s:3", mode="strong")
    return made


GET = [
    Row("get one", 0, prints(b"milk\n"), silent_err := (lambda ran: ran.err == b"")),
    Row("get one --raw", 0, prints(b"milk")),
    Row("get raw --raw", 0, prints(b"\xff\x00\n")),
    Row("get raw", 0, prints(b"\xff\x00\n\n")),
    Row("get empty", 0, prints(b"\n")),
    Row("get one -o json", 0, got(key="one", key_encoding="utf-8", found=True, value="milk", encoding="utf-8")),
    Row("get one --json", 0, got(value="milk")),
    Row("--json get one", 0, got(value="milk")),
    Row("-o json get one", 0, lambda ran: storied(ran.json)),
    Row("get one -o jsonl", 0, lambda ran: ran.out.count(b"\n") == 1 and ran.json["value"] == "milk"),
    Row("get one -o tsv", 0, prints(b"milk\n")),
    Row("get one -o wide", 0, lambda ran: b"VALUE" in ran.out and b"milk" in ran.out),
    Row("get one --explain", 0, prints(b"milk\n"), says("coordinator", "owner", "ms")),
    Row("get raw -o json", 0, got(value="/wAK", encoding="base64")),
    Row("get loud -o json", 0, lambda ran: b"\x1b" not in ran.out and ran.json["value"] == "\x1b[31mred\u202e"),
    Row(("get", b"bin\xff", "-o", "json"), 0, got(key="Ymlu/w==", key_encoding="base64")),
    Row("get one -r one", 0, prints(b"milk\n")),
    Row("get one -r quorum", 0, prints(b"milk\n")),
    Row("get one -r all", 0, prints(b"milk\n")),
    *(Row(f"get one --via n{i} -o json", 0, via(f"n{i}")) for i in (1, 2, 3)),
    Row("get one --via n9 -o json", 9, silent, error("Invalid", 9)),
    Row("get one -r 3 --mode quorum", 0, prints(b"milk\n")),
    Row("get nothing", 5, silent, says("nothing")),
    Row("get gone", 5, silent),
    Row("get nothing -o json", 5, got(found=False, value=None, siblings=[]), error("NotFound", 5, applied="no")),
    Row(("get", "no\x1b[31m"), 5, silent, lambda ran: b"\x1b" not in ran.err),
    Row("get two", 7, silent, says("tea,eggs", "tea,jam", "--context c1.", "merge")),
    Row("get two --siblings", 0, lambda ran: sorted(ran.out.split()) == [b"tea,eggs", b"tea,jam"]),
    Row("get two -o json", 7, got(value=None, found=True), error("Conflict", 7)),
    Row("get two -o json", 7, lambda ran: len(ran.json["siblings"]) == 2),
    Row("get two --siblings -o json", 0, got(value=None)),
    Row("get one -r 4", 9, silent, says("3 owners")),
    Row("get one -r 0", 9, silent),
    Row("get one -r 4 -o json", 9, silent, error("Invalid", 9, applied="no", acked=0)),
    Row("get one --mode quorum -r 1", 9, silent, says("quorum")),
    Row(("get", ""), 9, silent, says("empty")),
    Row(("get", "k" * 1025), 9, silent, says("1025", "1024")),
    Row(("get", "k" * 1024), 5, silent),
]

PUT = [
    Row("put p:1 milk", 0, lambda ran: ran.text.startswith("p:1\t") and CONTEXT.search(ran.text)),
    Row("put p:1 milk -o json", 0, data("put", written)),
    Row("put p:2 milk -w all -o json", 0, data("put", lambda d: d["acked"] == d["w"] == 3)),
    Row("put p:2 milk -w one -o json", 0, data("put", lambda d: d["w"] == 1)),
    Row("put p:2 milk -w 2 --mode quorum -o json", 0, data("put", lambda d: d["story"]["mode"] == "quorum")),
    Row("put p:3 - -o json", 0, data("put", written), stdin=b"\x00\xff" * 40),
    Row("put p:4 -o json -- -5", 0, data("put", written)),
    Row("put p:5 -5", 2, silent),
    Row("put p:6 v --explain", 0, lambda ran: ran.out.startswith(b"p:6"), says("coordinator")),
    Row("put p:7 v --ttl 60s", 0),
    Row("put p:7 v --ttl soon", 2, silent, says("soon")),
    Row("put p:8 v --ttl 0s", 9, silent),
    Row(("put", b"p:\xff", b"\xfe"), 0),
    Row(("put", "p:9", "v" * 9_997), 0),
    Row(("put", "p:9", "v" * 9_998), 9, silent, says("10001", "10000")),
    Row("put p:10 - -o json", 9, silent, error("Invalid", 9, applied="no", acked=0), stdin=b"v" * 20_000),
    Row(("put", "", "v"), 9, silent),
    Row(("put", "k" * 1025, "v"), 9, silent),
    Row("put p:11 v --if-absent -o json", 0, data("put", lambda d: d["condition"] == "best_effort")),
    Row("put one v --if-absent", 7, silent, says("exists")),
    Row("put one v --if-absent -o json", 7, silent, error("Conflict", 7, applied="no", acked=0)),
    Row("put two v --if-match {one}", 9, silent, says("another key")),
    Row("put p:12 v --context c1.AAAA", 9, silent),
    Row("put p:12 v --context nonsense", 9, silent, says("c1.")),
    Row("put p:12 v --context {one}", 9, silent, says("another key")),
    Row("put p:12 v --if-absent --siblings", 2, silent),
    Row("put p:12 v -w 4", 9, silent, says("3 owners")),
    Row("put p:12 v -w 0", 9, silent),
    Row("put p:12 v -w some", 2, silent),
    Row("put p:12 v --mode quorum -w 1", 9, silent),
    Row("put p:12 v --mode firm", 2, silent, says("eventual", "quorum")),
    Row("put p:12", 2, silent),
    Row("get p:12", 5, silent),
    Row("delete d:1 -o json", 0, data("delete", written)),
    Row("delete p:1", 0),
    Row("delete d:2 --context {one}", 9, silent),
    Row("put s:1 v --mode strong -o json", 0, lambda ran: written(ran.json) and "condition" not in ran.json),
    Row("get s:0 --mode strong", 0, prints(b"v\n"), silent_err),
    Row("get s:0 --mode strong --explain", 0, prints(b"v\n"), says("strong")),
    Row("get s:0", 0, prints(b"v\n")),
    Row("put s:0 w", 7, silent, says("mode strong")),
    Row("put s:0 w --mode strong --if-absent", 7, silent, says("exists")),
    Row("put s:1 w --mode strong --if-match {one}", 9, silent),
    Row("put s:1 w --mode strong -w all", 9, silent, says("majority")),
    Row("put s:1 w --mode strong --ttl 5s", 9, silent, says("time to live")),
    Row("delete s:1 --mode strong --if-match x --context y", 2, silent),
    Row("delete s:2 --mode strong", 0),
    Row("get s:3 --mode strong", 5, silent),
]

SCAN = [
    Row("scan list: --limit 3", 0, prints(b"list:00\tv0\nlist:01\tv1\nlist:02\tv2\n")),
    Row("scan list:", 0, lambda ran: ran.out.count(b"\n") == 12),
    Row("scan list: --limit 0", 0, silent),
    Row("scan nothing:", 0, silent),
    Row("scan s:0", 0, prints(b"s:0\tv\n")),
    Row("scan s:3", 0, silent),
    Row("scan s:0 -o json", 0, data("scan", lambda d: [i["register"] for i in d["items"]] == [True])),
    Row("scan one -o json", 0, data("scan", lambda d: [i["register"] for i in d["items"]] == [False])),
    Row("scan s:0 -o table", 0, lambda ran: b"register" in ran.out and b"KIND" in ran.out),
    Row("export s:0", 0, lambda ran: ran.json == {"key": "s:0", "register": True, "value": "v"}),
    Row("scan nothing: -o json", 0, data("scan", lambda d: d["items"] == [] and d["count"] == 0)),
    Row("scan list:0 -o json", 0, data("scan", lambda d: d["count"] == 10 and d["items"][3]["value"] == "v3")),
    Row("scan list:0 -o jsonl", 0, lambda ran: [json.loads(x)["key"] for x in ran.out.splitlines()][9] == "list:09"),
    Row("scan list: -o table", 0, lambda ran: ran.out.startswith(b"KEY")),
    Row("scan ke", 0, lambda ran: b"\x1b" not in ran.out and b"ke\\x1by" in ran.out),
    Row("scan bin -o json", 0, lambda ran: ran.json["items"][0]["key_encoding"] == "base64"),
    Row("scan gone", 0, silent),
    Row("export list:0", 0, lambda ran: json.loads(ran.out.splitlines()[2]) == {"key": "list:02", "value": "v2"}),
    Row("export bin", 0, lambda ran: ran.json == {"key": "Ymlu/w==", "key_encoding": "base64", "value": "v"}),
    Row("export two", 0, lambda ran: [s["value"] for s in ran.json["siblings"]] == ["tea,eggs", "tea,jam"]),
    Row("export timed", 0, lambda ran: TIME.fullmatch(ran.json["expires_at"])),
    Row("export list: -o json", 0, data("export", lambda d: d["count"] == 12)),
    Row("explain one -o json", 0, data("explain", lambda d: explained(d))),
    Row("explain one -o table", 0, lambda ran: all(w in ran.text for w in ("slot", "n1", "R=1", "R=3", '"milk"'))),
    Row("explain nothing -o json", 0, data("explain", lambda d: {r["state"] for r in d["replicas"]} == {"absent"})),
    Row("explain s:0 -o json", 0, data("explain", lambda d: registered(d))),
    Row("explain s:0 -o table", 0, lambda ran: all(w in ran.text for w in ("register", "accepted under", '"v"'))),
    Row("import -", 0, lambda ran: ran.json["imported"] == 1, stdin=b'{"key":"i:9","register":true,"value":"a"}\n'),
    Row("import -", 7, lambda ran: ran.json["failed"] == 1, says("versions"),
        stdin=b'{"key":"one","register":true,"value":"a"}\n'),
    Row("import -", 7, lambda ran: ran.json["failed"] == 1, says("register"), stdin=b'{"key":"s:0","value":"a"}\n'),
    Row("import -", 9, lambda ran: ran.json["failed"] == 1, says("one value"),
        stdin=b'{"key":"i:8","register":true,"siblings":[{"value":"a"},{"value":"b"}]}\n'),
    Row("import - -o json", 0, data("import", lambda d: (d["imported"], d["failed"]) == (2, 0)),
        stdin=b'{"key":"i:1","value":"a"}\n\n{"key":"aTo/","key_encoding":"base64","value":"/w==","encoding":"base64"}\n'),
    Row("import -", 9, lambda ran: ran.json.keys() >= {"imported", "failed", "took_ms"} and ran.json["imported"] == 2,
        says("line 2:", "1 of 3"), stdin=b'{"key":"i:2","value":"a"}\nnonsense\n{"key":"i:3","value":"a"}\n'),
    Row("import - -o json", 9, lambda ran: ran.json["failed"] == 1, error("Invalid", 9),
        stdin=b'{"key":"","value":"a"}\n'),
    Row("import no-such-file", 1, silent, says("no-such-file")),
    Row("import -", 0, lambda ran: ran.json["imported"] == 0),
]  # fmt: skip


def explained(value: Any) -> bool:
    assert value.keys() >= {"key", "slot", "partition", "owners", "fallbacks", "replicas", "hints"}
    assert len(value["owners"]) == len(value["replicas"]) == 3
    assert all(r.keys() >= {"node", "state", "siblings", "digest"} for r in value["replicas"])
    return all(r["siblings"][0]["value"] == "milk" for r in value["replicas"])


def registered(value: Any) -> bool:
    registers = [r["register"] for r in value["replicas"] if r["register"] is not None]
    assert {r["state"] for r in value["replicas"]} <= {"register", "absent"}
    assert all(r.keys() >= {"promised", "accepted", "value", "encoding", "tombstone", "dot"} for r in registers)
    return len(registers) >= 2 and all(r["value"] == "v" for r in registers)


def matrix(observers: Any) -> bool:
    peers = [peer for seen in observers.values() for peer in seen.values()]
    assert all(peer.keys() >= {"state", "phi", "silent_ms", "suspected_by"} for peer in peers)
    return len(peers) == 6


def repaired(value: Any) -> bool:
    wanted = "partitions exchanges nodes_compared keys_compared keys_repaired bytes_sent failed skipped took_ms"
    assert value.keys() >= set(wanted.split()), value.keys()
    return bool(value["failed"] == 0 and value["exchanges"] > 0)


CLUSTER = [
    Row("status", 0, lambda ran: [line[:2] for line in ran.text.splitlines()] == ["UN"] * 3),
    Row("status -o table", 0, lambda ran: "Status=Up/Suspect/Down" in ran.text and ran.text.count("UN  n") == 3),
    Row(
        "status -o json",
        0,
        data("status", lambda d: d.keys() >= STATUS_FIELDS and d["nodes"][0].keys() >= NODE_FIELDS),
    ),
    Row("status -o json", 0, data("status", lambda d: (d["n"], d["epoch_agreed"], d["margin"]) == (3, True, 1.0))),
    Row("status -o jsonl", 0, lambda ran: ran.out.count(b"\n") == 3),
    Row("check", 0, lambda ran: ran.text.count("[OK]") == len(ran.text.splitlines()) >= 7),
    Row("check -o json", 0, data("check", lambda d: d["verdict"] == "ok")),
    Row("wait ring-ready", 0),
    Row("wait ring-ready --timeout 1s -o json", 0, data("wait", lambda d: d["met"])),
    Row("wait hints-drained", 0),
    Row("wait converged --timeout 40s -o json", 0, data("wait", lambda d: d["took_ms"] >= 1000)),
    Row("wait quiet", 2, silent, says("ring-ready", "hints-drained", "converged")),
    Row("node ls", 0, lambda ran: ran.out.count(b"\n") == 3),
    Row("node ls -o json", 0, data("node.ls", lambda d: all(n["pid"] for n in d["nodes"]))),
    Row(
        "node ls --matrix",
        0,
        lambda ran: [r.split("\t")[i + 1] for i, r in enumerate(ran.text.splitlines())] == ["-"] * 3,
    ),
    Row("node ls --matrix -o json", 0, data("node.matrix", lambda d: matrix(d["observers"]))),
    Row("hints ls", 0, silent),
    Row("hints ls -o json", 0, data("hints.ls", lambda d: (d["hints"], d["held"], d["silent"]) == ([], 0, []))),
    Row("hints deliver -o json", 0, data("hints.deliver", lambda d: d["hints"] == 0 and len(d["nodes"]) == 3)),
    Row(
        "hints deliver n1 -o json",
        0,
        data("hints.deliver", lambda d: [n["node"] for n in d["nodes"]] == ["n2", "n3"]),
    ),
    Row("hints deliver n9", 5, silent, says("n9")),
    Row("hints drop n1", 8, silent, says("--yes", "n1")),
    Row("hints drop n1 -o json", 8, silent, error("Refused", 8)),
    Row("hints drop n1 --dry-run -o json", 0, data("hints.drop", lambda d: d["dry_run"])),
    Row("hints drop n1 --yes -o json", 0, data("hints.drop", lambda d: d["hints"] == 0)),
    Row("hints drop n9 --yes", 5, silent, says("n9")),
    Row("hints drop", 2, silent),
    Row("hints throttle 500/s -o json", 0, data("hints.throttle", lambda d: d["per_s"] == 500)),
    Row("hints throttle 500", 0, lambda ran: ran.text.count("done") == 3),
    Row("hints throttle fast", 2, silent, says("500/s")),
    Row("hints throttle 0", 9, silent),
    Row("repair status", 0, lambda ran: [r[:3] for r in ran.text.splitlines()] == ["n1\t", "n2\t", "n3\t"]),
    Row("repair status -o json", 0, data("repair.status", lambda d: d["count"] == 3 and d["silent"] == [])),
    Row("repair run --partition 0 -o json", 0, data("repair.run", lambda d: repaired(d) and d["partitions"] == 1)),
    Row(
        "repair run --partition 1 --watch -o json",
        0,
        data("repair.run", repaired),
        says("exchanges", "keys compared"),
    ),
    Row("repair waive -o json", 0, data("repair.waive", lambda d: d["partitions"] == 0 and d["nodes"] == [])),
    Row("repair waive --dry-run -o json", 0, data("repair.waive", lambda d: d["dry_run"])),
    Row("repair waive n1", 2, silent),
    Row("repair run --partition 256", 9, silent, says("0..255")),
    Row("repair run --partition x", 2, silent),
    Row("node info n1 -o json", 0, data("node.info", lambda d: d["id"] == "n1" and d["engine"] == "sqlite")),
    Row("node info n9", 5, silent, says("n9")),
    Row("node stats n1 -o json", 0, data("node.stats", lambda d: d["counters"]["commits"] > 0)),
    Row("node logs n1 -n 1", 0, lambda ran: b"serves" in ran.out or ran.out.count(b"\n") == 1),
    Row("events -o json", 0, data("events", lambda d: isinstance(d["events"], list))),
    Row("fault ls", 0, silent),
    Row("fault kill n9", 5, silent, says("n9")),
    Row("fault heal f9", 5, silent),
    Row("fault heal", 2, silent),
    Row("fault wipe n1", 8, silent, says("--yes", "data")),
    Row("fault wipe n1 -o json", 8, silent, error("Refused", 8)),
    Row("fault wipe n1 --dry-run -o json", 0, data("fault.wipe", lambda d: d["dry_run"])),
    Row("fault kill n1 --dry-run -o json", 0, data("fault.kill", lambda d: d["blast"]["margin"] == 0.0)),
    Row(
        "fault partition n1 n2,n3 --dry-run -o json",
        0,
        data("fault.partition", lambda d: d["blast"]["lose_quorum_count"] == 0 and len(d["blast"]["sides"]) == 2),
    ),
    Row("fault partition n1 n1", 9, silent, says("both sides")),
    Row("fault partition n1 n9", 5, silent, says("n9")),
    Row("fault partition n1 n2 --for 0s", 9, silent, says("24h")),
    Row("fault partition n1 n2 --for soon", 2, silent),
    Row("fault drop n1 1.5", 9, silent, says("100%")),
    Row("fault drop n1 much -o json", 2, silent, error("Usage", 2)),
    Row(("fault", "corrupt", "n1>", "1%"), 2, silent, says("quoted")),
    Row(("fault", "delay", "n1>n2", "100ms", "--jitter", "200ms"), 9, silent, says("jitter")),
    Row("fault delay n1 2m", 9, silent, says("60s")),
    Row("fault slow-disk n1 21s -o json", 9, silent, error("Invalid", 9)),
    Row("fault slow-disk n1 fast", 2, silent),
    Row("fault skew n1 0s", 9, silent),
    Row("fault skew n1 --sideways 5s", 2, silent),
    Row("fault skew n1 -5s --dry-run -o json", 0, data("fault.skew", lambda d: "-5s" in d["would"])),
    Row("fault fail-fsync n1 --dry-run -o json", 0, data("fault.fail-fsync", lambda d: d["risks"] == [])),
    Row("down --wipe", 8, silent, says("--yes")),
    Row("down --dry-run --wipe", 0, lambda ran: b"n1" in ran.out),
    Row("up --name local", 0, lambda ran: ran.out.count(b"\n") == 3, says("runs already")),
    Row("up --nodes 4", 1, silent, says("3")),
    Row("down --name other", 5, silent, says("other")),
    Row("config path", 0, lambda ran: b"config.toml" in ran.out),
    Row("config view --origin -o json", 0, data("config.view", lambda d: "cluster local" in str(d["settings"]))),
]

USAGE = [
    Row("", 2, silent, says("Usage")),
    Row("--help", 0, lambda ran: b"status" in ran.out),
    Row("--version", 0, lambda ran: ran.out.startswith(b"kvctl ")),
    Row("nonsense", 2, silent, says("nonsense")),
    Row("nonsense -o json", 2, silent, error("Usage", 2)),
    Row("get", 2, silent, says("KEY")),
    Row("get one --nonsense", 2, silent),
    Row("get one -o yaml", 2, silent, says("yaml", "jsonl")),
    Row("get one --raw -o json", 2, silent),
    Row("get one --mode firm", 2, silent),
    Row("get one --timeout never", 2, silent),
    Row("get one --connect nonsense", 9, silent, says("HOST:PORT")),
    Row("get one --connect nonsense -o json", 9, silent, error("Invalid", 9)),
    Row("fault flood n1", 2, silent),
    Row("fault partition n1", 2, silent),
    Row("fault partition n1, n2", 2, silent),
    Row("fault drop n1 30% --jitter 5ms", 2, silent),
    Row("cluster join", 2, silent),
    Row("dashboard", 2, silent, says("terminal")),
    Row("dashboard --record a --replay b", 2, silent, says("exclude")),
    Row("report nowhere", 1, silent, says("nowhere")),
    Row(("get", "one", *NOWHERE), 3, silent, says("127.0.0.1:1", "next:")),
    Row(("put", "p", "v", *NOWHERE, "-o", "json"), 3, silent, error("NoEndpoint", 3, applied="no")),
    Row(("status", *NOWHERE), 3, silent),
    Row(("check", *NOWHERE), 3, silent),
    Row(("wait", "ring-ready", "--timeout", "10ms", *NOWHERE), 11, silent),
    Row(("fault", "kill", "n1", *NOWHERE), 8, silent, says("kvctl up")),
]

ROWS = [*GET, *PUT, *SCAN, *CLUSTER, *USAGE]


def words(row: Row) -> str:
    args = row.args if isinstance(row.args, str) else " ".join(ascii(a)[:12] for a in row.args)
    return f"{args or '(nothing)'} -> {row.code}"


@pytest.fixture(scope="module")
def runs(request: pytest.FixtureRequest, three: Kvctl, stock: dict[str, str]) -> Iterator[dict[Row, Future[Ran]]]:
    """Every row that was asked for, started at once: they do not depend on each other."""
    asked = [item.callspec.params.get("row") for item in request.session.items if hasattr(item, "callspec")]
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = [row for row in asked if isinstance(row, Row)]
        yield {row: pool.submit(three, *arguments(row, stock), stdin=row.stdin) for row in rows}
        pool.shutdown(cancel_futures=True)


def arguments(row: Row, stock: dict[str, str]) -> tuple[str | bytes, ...]:
    return tuple(row.args.format_map(stock).split()) if isinstance(row.args, str) else row.args


@pytest.mark.parametrize("row", ROWS, ids=words)
def test_the_command_line_does_as_the_contract_says(
    row: Row, runs: dict[Row, Future[Ran]], stock: dict[str, str]
) -> None:
    """One row of the table."""
    ran = runs[row].result()

    told = f"{arguments(row, stock)}\nexit {ran.code}\n{ran.text}\n{ran.errors}"
    assert ran.code == row.code, told
    assert row.out(ran), told
    assert row.err(ran), told
    assert b"Traceback" not in ran.err, told


def test_an_export_imports_into_another_cluster_as_it_was(
    three: Kvctl, stock: dict[str, str], kvctl: Kvctl
) -> None:
    """Values, siblings, odd keys and all: what comes out again is the same."""
    dump = three("export").out
    kvctl.up(1)

    ran = kvctl("import", "-", "-o", "json", stdin=dump)

    assert ran.json["imported"] == dump.count(b"\n") > 15
    again = kvctl("export").out
    wanted, found = ([json.loads(line) for line in raw.splitlines()] for raw in (dump, again))
    for line in (*wanted, *found):
        line.pop("expires_at", None)
    assert found == wanted


def test_who_wins_where_a_setting_comes_from(three: Kvctl, kvctl: Kvctl, stock: dict[str, str]) -> None:
    """Flag over environment over context over the last `kvctl up`; the format likewise."""
    here = three("status", "-o", "json").json["nodes"][0]["address"]

    def origin(*args: str, **env: str) -> Any:
        settings = kvctl("config", "view", "--origin", "-o", "json", *args, **env).json["settings"]
        return {s["name"]: (s["value"], s["origin"]) for s in settings}

    assert kvctl("get", "one").code == 3
    assert kvctl("get", "one", KVCTL_CONNECT=here).out == b"milk\n"
    assert kvctl("config", "set", "connect", here).code == 0
    assert kvctl("get", "one").out == b"milk\n"
    assert origin()["connect"] == (here, "context default")
    assert origin(KVCTL_CONNECT="127.0.0.1:1")["connect"] == ("127.0.0.1:1", "env")
    assert origin("--connect", "127.0.0.1:2", KVCTL_CONNECT="127.0.0.1:1")["connect"] == ("127.0.0.1:2", "flag")
    assert kvctl("get", "one", KVCTL_CONNECT="127.0.0.1:1").code == 3
    assert kvctl("config", "set", "output", "json").code == 0
    assert kvctl("get", "one").json["value"] == "milk"
    assert kvctl("get", "one", "-o", "tsv").out == b"milk\n"
    assert kvctl("config", "use", "--none").code == 0
    assert kvctl("get", "one").code == 3
    assert kvctl("config", "use", "nobody").code == 5
    assert kvctl("config", "set", "colour", "red").code == 2


def test_a_bug_is_a_report_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Exit 70, a file under KVCTL_HOME/reports, and no value in it."""
    monkeypatch.setenv("KVCTL_HOME", str(tmp_path))
    monkeypatch.setattr(cli, "build", lambda _: 1 / 0)

    code = cli.run(["-o", "json", "put", "secret", "word"])

    told = capsys.readouterr()
    assert code == 70
    assert told.out == ""
    assert json.loads(told.err)["error"] == "Bug"
    report = next(tmp_path.glob("reports/*.txt")).read_text()
    assert "ZeroDivisionError" in report
    assert "word" not in report.partition("Traceback")[0]


def test_a_reader_that_leaves_ends_it_with_141(three: Kvctl, stock: dict[str, str]) -> None:
    """No traceback, and not the interpreter's complaint at exit either."""
    line = [sys.executable, "-m", "kvctl", "scan", "list:"]
    with subprocess.Popen(line, env=three.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (141, b"")


def on_a_terminal(kvctl: Kvctl, *args: str, **env: str) -> bytes:
    """What a terminal is sent."""
    ours, theirs = os.openpty()
    line = [sys.executable, "-m", "kvctl", *args]
    try:
        process = subprocess.Popen(
            line, env=kvctl.env | {"TERM": "xterm"} | env, stdin=theirs, stdout=theirs, stderr=theirs
        )
        sent, deadline = b"", time.monotonic() + 20
        while time.monotonic() < deadline:
            if select.select([ours], [], [], 0.05)[0]:
                sent += os.read(ours, 65536)
            elif process.poll() is not None:
                return sent
    finally:
        os.close(theirs)
        os.close(ours)
    raise AssertionError(f"{line} did not end: {sent!r}")


def test_a_terminal_gets_tables_in_colour_unless_told_otherwise(three: Kvctl, stock: dict[str, str]) -> None:
    """NO_COLOR and TERM=dumb get no escape at all; a value never gets to send its own."""
    assert b"\x1b[" in (coloured := on_a_terminal(three, "status"))
    assert b"Status=Up/Suspect/Down" in coloured
    for env in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        sent = on_a_terminal(three, "status", **env)
        assert b"UN" in sent
        assert b"\x1b" not in sent
    assert on_a_terminal(three, "get", "loud") == b"\\x1b[31mred\\u202e\r\n"
    assert b"\x1b" not in on_a_terminal(three, "scan", "ke", NO_COLOR="1")


def test_ctrl_c_ends_it_with_130(three: Kvctl) -> None:
    """Whatever it was doing, and without a word."""
    line = [sys.executable, "-m", "kvctl", "status", "--watch", "-o", "jsonl"]
    with subprocess.Popen(line, env=three.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith(b"{")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (130, b"")


def test_nothing_on_the_way_to_get_loads_textual_or_pydantic(three: Kvctl, stock: dict[str, str]) -> None:
    """That is what keeps `kvctl get` quick."""
    line = [sys.executable, "-X", "importtime", "-m", "kvctl", "get", "one"]
    done = subprocess.run(line, env=three.env, capture_output=True, check=True, timeout=20)
    loaded = {part.split(b"|")[-1].strip().split(b".")[0] for part in done.stderr.splitlines()}
    assert not loaded & {b"textual", b"rich", b"psutil", b"pydantic"}, loaded
    assert b"zmq" in loaded


def test_a_fault_inside_a_node_is_shown_wherever_one_would_look(three: Kvctl, stock: dict[str, str]) -> None:
    """ACTIVE once acknowledged, with the time left, beside those of processes; over when healed."""
    ran = three("fault", "delay", "n1>n2", "20ms", "--jitter", "5ms", "--for", "60s", "-o", "json")
    (told,) = ran.json["faults"]
    assert (told["target"], told["kind"], told["value"]) == ("n1>n2", "delay", "20ms +-5ms")
    assert (told["state"], told["nodes"]) == ("ACTIVE", ["n1"])
    assert 50 < told["left_s"] <= 60
    cut = three("fault", "partition", "n1", "n2,n3", "--one-way", "-o", "json").json["faults"][0]
    assert (cut["target"], cut["nodes"]) == ("n1>n2,n3", ["n1", "n2", "n3"])

    listed = three("fault", "ls", "-o", "json").json["faults"]
    assert [f["id"] for f in listed] == [told["id"], cut["id"]]
    shown = [node["faults"] for node in three("status", "-o", "json").json["nodes"]]
    assert shown == [
        [f"{told['id']} delay", f"{cut['id']} partition"], [f"{cut['id']} partition"], [f"{cut['id']} partition"],
    ]  # fmt: skip

    healed = three("fault", "heal", told["id"], "-o", "json").json["faults"]
    assert [(f["id"], f["state"], f["expires"]) for f in healed] == [(told["id"], "HEALED", None)]
    assert three("fault", "heal", told["id"]).code == 5
    assert [f["id"] for f in three("fault", "heal", "--all", "-o", "json").json["faults"]] == [cut["id"]]
    assert three("fault", "ls").text == ""
    assert three("wait", "converged").code == 0


def test_with_owners_down_the_errors_say_what_is_known(three: Kvctl, stock: dict[str, str]) -> None:
    """One down: a warning, and W=3 fails. Two down: quorums fail, r=1 goes on, `check` is critical."""
    assert three("fault", "kill", "n3").code == 0
    assert eventually(lambda: three("status").text.splitlines()[2].startswith("DN\tn3\t"))
    assert three("status", "-o", "json").json["nodes"][2]["faults"] == ["f1 kill"]
    assert three("check").code == 10
    ran = three("put", "down:1", "v", "-w", "all", "-o", "json")
    assert ran.code in (4, 6)
    assert ran.error["error"] in ("Unavailable", "Indeterminate")
    assert three("put", "down:2", "v").code == 0
    assert three("get", "one").out == b"milk\n"
    assert three("scan", "list:").code == 0

    for fault in ("kill", "fail-fsync"):
        refused = three("fault", fault, "n2")
        assert refused.code == 8
        assert "quorum" in refused.errors
    assert three("fault", "kill", "n2", "--yes").code == 0

    ran = three("get", "one", "-o", "json")
    assert ran.code in (4, 6)
    assert ran.out == b""
    assert three("get", "one", "-r", "one").out == b"milk\n"
    assert three("scan").code in (4, 6)
    assert three("check").code == 11

    healed = three("fault", "heal", "--all", "-o", "json")
    assert [f["target"] for f in healed.json["faults"]] == ["n3", "n2"]
    assert three("wait", "converged").code == 0
    assert eventually(lambda: three("check").code == 0)
    assert three("put", "down:3", "v", "-w", "all").code == 0


def test_repair_pauses_and_resumes_and_a_member_that_is_away_is_named(three: Kvctl, stock: dict[str, str]) -> None:
    """An order that did not reach everyone is no success, and says whom it did not reach."""
    assert three("repair", "pause", "-o", "json").json["schema"] == "kvctl.repair.pause/v1"
    assert {n["paused"] for n in three("repair", "status", "-o", "json").json["nodes"]} == {True}
    assert three("check").code == 10
    assert three("repair", "run").code == 8
    assert three("fault", "kill", "n3").code == 0

    ran = three("repair", "resume", "-o", "json")
    assert ran.code == 6
    assert "n3" in ran.error["message"]
    assert {n["node"]: n["done"] for n in ran.json["nodes"]} == {"n1": True, "n2": True, "n3": False}
    assert three("hints", "drop", "n3", "--yes").code == 0
    assert three("hints", "drop", "n1", "--yes").code == 6
    assert three("wait", "hints-drained", "--timeout", "100ms").code == 11

    assert three("fault", "heal", "--all").code == 0
    assert three("wait", "converged").code == 0
