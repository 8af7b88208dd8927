"""What leaves on stdout, without a cluster: escapes, tables, JSON."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kvctl import output, render, render_cluster
from kvctl.errors import Invalid
from kvctl.health import margin, short_of_quorum
from kvctl.model import Item
from kvctl.ndjson import parse
from kvctl.output import Table, View, aligned, escape, show, to_json, utc
from kvctl.render_explain import explain_view
from kvnode.protocol.messages import Answer, ClusterReport, Explained, Hinted, ReplicaState, Story
from kvnode.protocol.ring import Member, Ring
from kvnode.protocol.types import NodeId, Version, encode_record
from tests.reports import N1, N2, N3, WALL, cluster, report, ring3

TRICKS = "\x1b]0;owned\x07\x1b[31m\x9b2J\u202egnp\u2066\u200b\u2028\x7f\r\n\t\x00"


def item(*values: bytes | None, key: bytes = b"k") -> Item:
    versions = tuple(Version(10 + i, (WALL + i) << 16, {}, value) for i, value in enumerate(values))
    return Item(key, encode_record(versions) if versions else b"")


def shown(view: View, form: str) -> str:
    stream = io.StringIO()
    output.write(view, form, stream)
    return stream.getvalue()


# ---- escaping ------------------------------------------------------------------------------


def test_what_a_terminal_would_obey_is_shown_instead() -> None:
    """Escape sequences, direction marks and invisible characters never leave as they are."""
    assert show(b"a\x1b[31mred") == "a\\x1b[31mred"
    assert show("abc\u202edef") == "abc\\u202edef"
    assert show(b"two\nlines\tand \\") == "two\\nlines\\tand \\\\"
    assert show(b"\xff\xfe") == "\\xff\\xfe"
    assert show("naïve 日本 😀") == "naïve 日本 😀"


@given(st.binary(max_size=60))
def test_shown_bytes_are_printable_and_unambiguous(raw: bytes) -> None:
    """Different bytes look different, and none of them moves the cursor."""
    text = show(raw)
    assert all(c.isprintable() for c in text), text
    back = text.encode().decode("unicode_escape") if text.isascii() else None
    if back is not None and raw.isascii():
        assert back.encode("latin-1") == raw


@given(st.text(max_size=40))
def test_json_survives_its_escaping(text: str) -> None:
    """What is escaped for the terminal's sake still decodes to the same text."""
    if any(0xD800 <= ord(c) <= 0xDFFF for c in text):
        return
    line = to_json({"t": text})
    assert json.loads(line) == {"t": text}
    assert all(c.isprintable() for c in line)


def test_tricks_in_every_place_a_name_can_stand() -> None:
    """Keys, values, node names, cluster names, event texts."""
    ring = Ring(TRICKS, 1, 1, 1, 16, (Member(NodeId(TRICKS), TRICKS, "h"),), ((0,),) * 16, (1,) * 16)
    views = [
        render.get_view(item(TRICKS.encode(), b"b", key=TRICKS.encode())),
        render_cluster.status_view(ClusterReport(1, ring, (None,), NodeId(TRICKS)), {}),
        explain_view(
            TRICKS.encode(),
            Explained(1, 1, 5, 0, (NodeId(TRICKS),), (ReplicaState(NodeId(TRICKS), TRICKS, b"", b""),)),
            16,
        ),
    ]
    for view in views:
        for form in output.FORMATS:
            text = shown(view, form)
            bad = {c for c in text if not c.isprintable() and c not in "\n\t"}
            assert not bad, (view.command, form, bad)
    assert "\x1b" not in escape(f"no value under {TRICKS}")


# ---- tables --------------------------------------------------------------------------------


def test_columns_line_up_whatever_the_width_of_their_characters() -> None:
    """Wide characters take two cells."""
    lines = list(aligned(("A", "N"), [("日本", "1"), ("abcd", "22"), ("e\u0301", "3")], frozenset({"N"})))
    assert lines == ["A      N", "日本   1", "abcd  22", "e\u0301      3"]


def test_a_view_in_every_format() -> None:
    """TSV has no header and all columns; a table has the narrow ones; JSON has the schema."""
    view = View("x", {"b": 1, "a": None}, Table(("A", "B"), (("1", "2"),), wide_from=1), [{"a": 1}, {"a": 2}])

    assert shown(view, "tsv") == "1\t2\n"
    assert shown(view, "table") == "A\n1\n"
    assert shown(view, "wide") == "A  B\n1  2\n"
    assert json.loads(shown(view, "json")) == {"a": None, "b": 1, "schema": "kvctl.x/v1"}
    assert shown(view, "json").index('"a"') < shown(view, "json").index('"b"')
    assert [json.loads(line)["a"] for line in shown(view, "jsonl").splitlines()] == [1, 2]


def test_times_are_rfc_3339_in_utc() -> None:
    """With milliseconds; a time no calendar has is null."""
    assert utc(1_790_000_000_123) == "2026-09-21T14:13:20.123Z"
    assert utc(None) is None
    assert utc(1 << 62) is None


# ---- replies -------------------------------------------------------------------------------


def test_get_json_is_the_contract_s() -> None:
    """One value, none, and several."""
    one = render.item_json(item(b"milk"))
    assert (one["found"], one["value"], one["encoding"]) == (True, "milk", "utf-8")
    assert one["siblings"][0]["dot"] == ["000000000000000a", str(WALL << 16)]
    assert one["siblings"][0]["written_at"] == utc(WALL)
    assert one["context"].startswith("c1.")

    none = render.item_json(item())
    assert (none["found"], none["value"], none["siblings"]) == (False, None, [])

    two = render.item_json(item(b"a", b"\xff"))
    assert two["value"] is None
    assert [(s["value"], s["encoding"]) for s in two["siblings"]] == [("a", "utf-8"), ("/w==", "base64")]


def test_siblings_of_equal_bytes_are_one() -> None:
    """And a tombstone beside a value is none."""
    assert render.item_json(item(b"a", b"a"))["value"] == "a"
    assert render.item_json(item(b"a", None))["value"] == "a"
    assert not render.item_json(item(None))["found"]


def test_a_story_tells_who_said_what() -> None:
    """Each answer with its node, kind, time and whether it was a digest or a value."""
    answers = (Answer(N1, "owner", True, 0.1234, "value"), Answer(N2, "owner", True, 1.0, "digest"))
    told = render.story_json(Story(N1, 1, 1, 3, (N1, N2), answers, True, 2.0, "best_effort"))
    assert isinstance(told, dict)
    assert told["mode"] == "quorum"
    assert told["answers"] == [
        {"node": "n1", "kind": "owner", "ok": True, "ms": 0.123, "told": "value", "value": True},
        {"node": "n2", "kind": "owner", "ok": True, "ms": 1.0, "told": "digest", "digest": True},
    ]
    assert told["condition"] == "best_effort"


def test_explain_says_what_each_r_can_return() -> None:
    """Copies that differ make the answer depend on who is asked."""
    old, new = Version(1, 100 << 16, {}, b"old"), Version(2, 200 << 16, {1: 100 << 16}, b"new")
    states = tuple(
        ReplicaState(node, "present", encode_record(record), b"d")
        for node, record in ((N1, (old,)), (N2, (new,)), (N3, (new,)))
    )
    view = explain_view(b"k", Explained(1, 1, 100, 1, (N1, N2, N3), states), 256)
    assert view.text is not None
    assert 'R=1  "old"  or  "new"' in view.text
    assert 'R=2  "new"\n' in view.text
    assert view.data["owners"] == ["n1", "n2", "n3"]


def test_a_story_tells_of_fallbacks_hints_and_repairs() -> None:
    """Who stood in for whom, and which owner is being mended."""
    answers = (Answer(N1, "owner", True, 0.1, "written"), Answer(N3, "fallback", True, 2.0, "written"))
    story = Story(N1, 0, 1, 3, (N1, N2), answers, False, 2.0, "", (Hinted(N2, N3),), (N1,))
    told = render.story_json(story)
    assert isinstance(told, dict)
    assert told["hinted"] == [{"for": "n2", "on": "n3"}]
    assert told["repaired"] == ["n1"]
    assert told["answers"][1]["kind"] == "fallback"
    text = render.story_text(story)
    assert "n3  keeps a hint for n2" in text
    assert "repaired: n1" in text


def test_explain_tells_who_keeps_a_hint_and_why_a_tombstone_is_still_there() -> None:
    """In the picture and in JSON; an owner may keep one for another owner, told once."""
    grave = encode_record((Version(1, 100 << 16, {}, None),))
    states = (
        ReplicaState(N1, "present", grave, b"d", (N2,), "n2 has not confirmed it"),
        ReplicaState(N2, "unreachable", b"", b""),
    )
    kept = (ReplicaState(N3, "present", grave, b"d", (N2,)), states[0])
    view = explain_view(b"k", Explained(1, 1, 100, 1, (N1, N2), states, (N3,), kept), 256)

    assert view.data["fallbacks"] == ["n3"]
    hints = view.data["hints"]
    assert isinstance(hints, list)
    assert [(h["on"], h["for"]) for h in hints] == [("n3", "n2"), ("n1", "n2")]
    replicas = view.data["replicas"]
    assert isinstance(replicas, list)
    assert [r["grave"] for r in replicas] == ["n2 has not confirmed it", None]
    assert view.text is not None
    assert "the tombstone is still there: n2 has not confirmed it" in view.text
    assert "n3  keeps a hint for n2" in view.text
    assert "fallbacks: n3" in view.text


def test_a_malformed_record_of_a_replica_is_told_as_such() -> None:
    """Explain never trusts what a node sent."""
    states = (ReplicaState(N1, "present", b"\xc1junk", b""),)
    view = explain_view(b"k", Explained(1, 1, 1, 0, (N1,), states), 16)
    replicas = view.data["replicas"]
    assert isinstance(replicas, list)
    assert replicas[0]["state"] == "malformed"


def test_status_json_is_the_contract_s() -> None:
    """What nobody tells is null; a node that does not answer is down."""
    data = render_cluster.status_view(cluster(report(N1), report(N2), down=(N3,)), {}).data
    assert {"cluster", "epoch", "epoch_agreed", "n", "q", "nodes", "needs_repair", "margin"} <= data.keys()
    nodes = data["nodes"]
    assert isinstance(nodes, list)
    up, down = nodes[0], nodes[2]
    wanted = (
        "id address state member partitions primaries keys bytes hints_held hints_for_it p99_ms phi suspected_by"
    )
    assert set((wanted + " uptime_s faults pid").split()) <= up.keys()
    assert (up["state"], up["keys"], up["bytes"], up["p99_ms"], up["uptime_s"]) == ("up", 3, 30, 1.5, 5.0)
    assert (down["state"], down["keys"], down["uptime_s"], down["hints_held"]) == ("down", None, None, None)
    assert data["margin"] == 0.0


def test_margin_is_what_the_worst_next_failure_leaves() -> None:
    """Three copies: one failure is survived everywhere, after it none."""
    ring = ring3()
    assert margin(ring, {0, 1, 2}) == 1.0
    assert margin(ring, {0, 1}) == 0.0
    assert short_of_quorum(ring, {0, 1}) == 0
    assert short_of_quorum(ring, {0}) == 16
    assert margin(ring, set()) == 0.0


# ---- NDJSON --------------------------------------------------------------------------------


@given(st.binary(min_size=1, max_size=30), st.lists(st.binary(max_size=30), min_size=1, max_size=3, unique=True))
def test_an_exported_line_imports_as_what_it_was(key: bytes, values: list[bytes]) -> None:
    """Any bytes, one value or several."""
    line = parse(to_json(render.export_line(item(*values, key=key))).encode(), WALL)
    assert line.key == key
    assert [v.value for v in line.values] == values
    assert line.plain == (len(values) == 1)


@pytest.mark.parametrize(
    "line",
    [
        b"{", b"[]", b"1", b'{"key":"a"}', b'{"value":"b"}', b'{"key":"a","value":"b","siblings":[]}',
        b'{"key":"a","siblings":[]}', b'{"key":"a","value":"b","encoding":"rot13"}', b'{"key":"a","value":1}',
        b'{"key":"a","value":"!","encoding":"base64"}', b'{"key":"a","value":"b","expires_at":"soon"}',
        b'{"key":"a","value":"b","expires_at":"2026-01-01T00:00:00"}', b'{"key":"a","valeu":"b"}', b"\xff",
        b'{"key":"\\ud800","value":"b"}', b'{"key":"a","value":"b","expires_at":true}',
    ],
)  # fmt: skip
def test_every_bad_line_is_a_sentence(line: bytes) -> None:
    """No line makes the import fall over."""
    with pytest.raises(Invalid):
        parse(line, WALL)


def test_a_time_of_expiry_becomes_a_time_to_live() -> None:
    """What has expired already lives for the shortest time there is."""
    line = parse(b'{"key":"a","value":"b","expires_at":"2026-09-21T14:13:30Z"}', WALL)
    assert line.values[0].ttl_s == 10.0
    assert parse(b'{"key":"a","value":"b","expires_at":1}', WALL).values[0].ttl_s == 0.001


def test_views_are_json_already() -> None:
    """Nothing in a view's data needs a default encoder."""
    told = cluster(report(N1))
    for view in (
        render_cluster.status_view(told, {}),
        render_cluster.stats_view(report(N1)),
        render.get_view(item(b"a")),
    ):
        assert msgspec.json.decode(to_json(view.data))
