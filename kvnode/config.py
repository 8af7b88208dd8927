"""Every limit and default of a node, with its unit and what happens when it is hit.

Promises: no queue, cache, retry or timeout anywhere is bounded by a number that is not here.
Never: imports anything of ours; `core` may read it, for a constant is neither clock nor socket.
"""

from __future__ import annotations

import msgspec

KEY_BYTES_MAX = 1024
"""Longest key. A longer one is refused as invalid, stored nowhere."""

PAIR_BYTES_CEILING = 1_000_000
"""Largest `max_pair_bytes` a cluster can be set to, so that frames keep a known bound."""

FRAME_BYTES_MAX = 64 * 1024 * 1024
"""Largest frame a socket takes (ZeroMQ drops the connection beyond). Above any record repair can
meet at the default pair size: 100 siblings x 3 diverged replicas x 10 KB = 3 MB."""

BATCH_BYTES_TARGET = 4 * 1024 * 1024
"""A batch that encodes larger than this is cut in two, and again, before it leaves."""

BATCH_MESSAGES_MAX = 4096
"""Most messages in one frame. A frame with more is dropped and counted."""

TURN_FRAMES_MAX = 256
"""Frames read from the sockets in one turn; the rest wait for the next, so timers stay punctual."""

SEND_HWM = 4096
"""Frames ZeroMQ queues to one peer. A full pipe is a lost message, counted, never a block."""

POLL_MS_MAX = 250
"""Longest a node waits for a message, so that the engine's health is looked at now and then."""

STOP_S_MAX = 5.0
"""Longest a node that was told to stop works on what it has accepted."""

HEARTBEAT_MS = 1_000
"""ZeroMQ's own heartbeat on each connection; three missed ones close it, and it dials again."""

REDIAL_MS, REDIAL_MS_MAX = 20, 100
"""How soon, at first and at most, ZeroMQ dials again after a connection broke."""

KEPT_MS = 500
"""How long a frame waits for a connection that is down, before it counts as lost."""

KEPT_FRAMES_MAX = 64
"""Frames kept so for one peer; beyond it the oldest is lost."""

CLOCK_ENTRIES_MAX = 256
"""Actors in a new version's past. Beyond it the oldest go when minting (Dynamo §4.4)."""

CLOCK_ENTRIES_YOUNG = 50
"""Beyond so many actors, those go whose time is over `CLOCK_ENTRY_OLD_MS` ago."""

CLOCK_ENTRY_OLD_MS = 86_400_000
"""A clock that is an hour ahead makes recent entries look the oldest: only a day is old."""

CLOCK_ENTRIES_FREE = 8
"""A longer past loses the entries that all owners have finished an exchange since."""

CLOCK_ENTRIES_CAP = 81_920
"""Actors a decoder accepts in one past: the context of the most siblings repair can meet names
100 siblings x 3 diverged replicas x (256 + 1) = 77,100."""

CONTEXT_BYTES_MAX = 2 * 1024 * 1024
"""Longest context token; that many actors of 18 bytes, in base64. A longer one is refused as invalid."""

SIBLINGS_MAX = 100
"""A client's put that would leave more siblings is refused; repair never is."""

SIBLINGS_CAP = 4096
"""Versions a decoder accepts in one record."""

CLOCK_AHEAD_MAX_MS = 60_000
"""A remote time further ahead is counted and kept out of the clock; a context naming one is refused."""

TTL_MS_MAX = 100 * 366 * 86_400_000
"""Longest time to live, a hundred years. A frame that asks for more is malformed: beyond 64 bits no
expiry could be written down."""

WRITE_DEADLINE_MIN_MS, WRITE_DEADLINE_MAX_MS = 1_000, 60_000
"""Least and most for `write_deadline_ms`: longest a request may live. What can write is refused after it."""

TICK_MS = 10
"""How often timers are looked at while anything has one."""

HEDGE_MS = 15
"""A read asks R owners; when they have not answered after this long, it asks the others too."""

HEALING_MAX = 256
"""Damaged copies being mended at once; others wait until they are next asked for."""

AVOID_MS = 1_000
"""A peer that failed a request is not waited for during this time, unless it is heard from."""

DEADLINE_SLICE_MS = 50
"""Requests expire in slices of this width: one list append a request instead of a heap push."""

PENDING_MAX = 20_000
"""Client requests a node coordinates at once. Beyond it: `Overloaded`, nothing stored."""

SCANS_MAX = 64
"""Pages of scans a node gathers at once, each up to `SCAN_PAGE_BYTES_MAX` a member. Beyond: `Overloaded`."""

SCAN_PAGE_MAX = 256
"""Most keys in one page of a scan: each of them is read in one turn, which other requests wait for."""

SCAN_PAGE_BYTES_MAX = 1024 * 1024
"""A scan page is cut short at this many bytes of records."""

TEXT_CHARS_MAX = 4_096
"""Longest text a decoder accepts in a message. An event's is cut to it."""

EVENTS_MAX = 2_048
"""Events a node remembers; the oldest are forgotten."""

MEMBERS_MAX, SLOTS_MAX = 4096, 16_384
"""Members a decoder accepts in one table, and partitions in one message."""

LIFE_LEAP_MAX = 1 << 32
"""No member has begun so many lives between two words of it: such an entry is a lie, and ignored."""

BEAT_MS = 250
"""How often a node beats directly to every peer, in clusters of up to `DIRECT_BEATS_MAX`."""

DIRECT_BEATS_MAX = 32
"""Larger clusters hear of each other by gossip alone."""

GOSSIP_MS = 1_000
GOSSIP_FANOUT = 3
"""Each period a node sends its table to so many random peers, one suspect and one seed."""

PHI_WINDOW = 100
"""Gaps remembered of each peer."""

PHI_SAMPLES_MIN = 8
"""Before there are so many, the expected gap stands in for the mean."""

PHI_GAP_MAX_MS = 5_000
"""A longer gap means the peer was away: nothing is learnt from it."""

PHI_DEVIATION_MIN_MS = 250
"""Floor of the deviation at a mean gap of `BEAT_MS`; it grows with the mean. 1.65 s of silence at 250 ms."""

SUSPICION_LAPSE_MS = 5_000
"""An observer not heard of for so long has no opinion any more."""

STALL_MS = 1_000
"""A node that stood still for longer forgives its peers that silence."""

FLAP_DELAY_MS, FLAPS_MAX, FLAP_FORGET_MS = 1_000, 10, 60_000
"""A node that went down k times in a minute is up again only after k seconds of beating."""

HINTS_PER_S_CEILING = 100_000
"""Fastest delivery an operator can ask for."""

HINTS_IN_FLIGHT = 128
"""Hints on their way to one owner; the next leave as these are acknowledged."""

HINT_RETRY_MS = 2_000
"""A hint not acknowledged after this long is sent again."""

SPANS_MAX = 1_024
"""Spans of a hash tree in one message of an exchange; what is over goes in the next."""

EXCHANGE_KEYS_MAX = 8_192
"""Keys in one message of an exchange."""

EXCHANGE_BYTES_TARGET = 256 * 1024
"""An exchange ships records in messages of about this size, one at a time: foreground work comes between."""

EXCHANGES_ACTIVE_MAX = 2
"""Exchanges a node begins at once."""

EXCHANGE_BUSY_MS = 500
"""A partition whose exchange with one owner was heard of so lately is not exchanged with another yet."""

EXCHANGE_STEP_MS = 5_000
"""An exchange whose other side does not answer a step for so long is given up, and begun again later."""

READ_REPAIRS_PER_S = 1_000
"""Stale copies found by reads are mended up to this rate; anti-entropy finds the others."""

NEEDS_REPAIR_MAX = 65_536
"""(Partition, owner) pairs remembered as having missed a write; more are left to the next round."""

SCRUB_LEAVES = 128
"""Leaves the scrubber looks at in one turn, at most."""

BURIALS_MAX = 64
"""Tombstones whose owners are being asked at once; the others wait for the next walk."""

URGENT_REPAIRS_MS = 1_000
"""How often the pairs known to differ are queued for an exchange."""

SKEW_MS = 1_000
"""Peers whose clocks agree this well with ours need no deadlines of their own."""

ASK_DISK_MS = 200
"""How often a node asks those who have not told yet what disk they remember it by."""

VOUCH_MS = 5_000
"""A new disk that others have not all vouched for by then begins exchanges with those in reach."""

ALIVE_NOTE_MS = 60_000
"""How often a node notes that its disk is in use, and its steady clock: neither goes back by a restart."""

FOREVER_MS = 1 << 60
"""Later than any wall clock."""

BALLOT_LIFE_MS = 10_000
"""Longest a `strong` request may live, and so each of its ballots: a longer deadline is cut to it. A member
that lost its votes waits out twice as long before it votes again."""

BACKOFF_MS, BACKOFF_MS_MAX = 10, 160
"""A proposer that was outbid waits for a random part of the first, doubled each time, up to the second."""

SILENT_MS, SILENT_AGAIN_MS = 600, 200
"""A member that missed two beats, and has not answered a `strong` round for the second time, is not waited for
by it. Sooner than it is suspected: a guess that is wrong costs a refusal that left no trace."""

STRONG_MAX = 4_096
"""`strong` requests a node coordinates at once. Beyond it: `Overloaded`, nothing stored."""

REREADS = 2
"""A `strong` read that found its owners at different ballots asks so often again, `HEDGE_MS` apart, before it
takes a ballot of its own and outbids whoever is writing."""

STRONG_LINE_MAX = 64
"""`strong` writes of one key that wait at a node for each other. Beyond it: `Overloaded`, nothing stored."""

REGISTER_WAIT_MS = 500
"""A register that an exchange found different is looked at once more after one to two times this long: a write
under way looks like a difference. Also how long a repair waits before it looks again after it was outbid."""

REGISTER_STEP_MS = 500
"""A repair goes on without an owner that has not answered for so long."""

REGISTER_REPAIRS_MAX, REGISTERS_PER_S = 64, 500
"""Registers a node repairs at once, and begins to a second: foreground rounds come between."""

REGISTERS_WAITING_MAX = 8_192
"""Registers that wait for repair; more are left to the next exchange."""

REGISTERS_PAGE = 1_000
"""Registers in one message to a member that lost its own."""

COPY_RETRY_MS = 500
"""How often such a member asks for a page that has not come."""

COMMIT_S_MAX = 30
"""A commit that has not returned after this long has an unknown outcome: the node stops."""

FLUSH_ROWS = 250
"""Rows in one statement of a flush; eight statements make a transaction."""

TABLE_CACHE_KB = 8 * 1024
"""SQLite's own page cache on the connection that reads the table."""

ENTRY_OVERHEAD_BYTES = 300
"""Python's objects around a record in memory: bytes headers, the struct, its dict slot (measured)."""

MEMTABLE_FACTOR_MAX = 2
"""While a flush runs the next memtable may grow to this many times its bound; then reading stops."""

ABSENT_REMEMBERED = 4096
"""Keys found absent a moment ago: their first write need not look again."""

FLUSH_BYTES = 1024 * 1024
"""A flush's statement is also ended at this many bytes of rows."""

FLUSH_STATEMENTS = 8
"""Statements in one transaction of a flush; a checkpoint follows each."""

FORGET_ROWS = 500
"""A flushed memtable is freed in slices of this many entries: freeing it at once would stall the loop."""

LOG_QUEUE_BYTES_MAX = 64 * 1024 * 1024
"""Writes that wait for the commit in flight. Beyond it the node stops reading, as for a slow flush."""

LOG_CHECKPOINT_BYTES = 4 * 1024 * 1024
"""After this many bytes of batches the log's WAL is copied into its file, behind the acks."""

LOG_TRIM_BYTES = 4 * 1024 * 1024
"""The log is trimmed in statements of about this many bytes, so that no commit waits long behind one."""

SCAN_SORT_MAX = 8_192
"""Keys of the memtable that one page of a scan sorts for good; the rest it looks through."""

WAL_BYTES_KEPT = 32 * 1024 * 1024
"""A WAL file that grew beyond this is cut back to it once its content has been copied."""


FAULT_FOR_MS = 30_000
"""How long a fault inside a node lasts unless told."""

FAULT_FOR_MS_MAX = 24 * 3_600_000
"""...and at the most: a fault that nobody remembers ends by itself."""

FAULTS_MAX = 64
"""Faults in force in one node at once; one more is refused."""

FAULT_DELAY_MS_MAX = 60_000
"""Longest delay of a frame that a fault may ask for."""

FAULT_DISK_MS_MAX = 20_000
"""Longest delay of a commit: below `COMMIT_S_MAX`, beyond which a commit counts as failed."""

FAULT_SKEW_MS_MAX = 365 * 86_400_000
"""Furthest a fault may turn a clock."""

FAULT_HELD_MAX = 4_096
"""Batches a fault holds back at once, delayed or to be overtaken; more are dropped, as a full queue does."""

FAULT_OVERTAKEN_MS = 50
"""How long a reordered batch is held, so that later ones pass it."""

DISK_WARN_BYTES = 512 * 1024 * 1024
"""With less room on a node's disk `kvctl check` warns. A full disk fails a commit, which stops the node."""


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What an operator may set, by `--config FILE.toml`. Every field has a working default."""

    deadline_ms: int = 2_000
    """How long a request may take when the client names no time."""

    max_pair_bytes: int = 10_000
    """Key plus value. A larger pair is refused as invalid, stored nowhere."""

    memtable_bytes: int = 32 * 1024 * 1024
    """Recent writes kept in memory before a flush to the table begins."""

    cache_bytes: int = 64 * 1024 * 1024
    """Hot records kept in memory; the least recently used go first."""

    compress_min_bytes: int = 256
    """Records smaller than this are stored as they are."""

    avoid_ms: int = AVOID_MS
    """How long a peer that failed a request is not waited for."""

    hint_bytes: int = 256 * 1024 * 1024
    """Hints a node keeps for others, in memory and on disk, `ENTRY_OVERHEAD_BYTES` each included. Beyond it
    new ones are refused."""

    hint_age_ms: int = 3 * 3_600_000
    """An owner away for longer gets its hints' contents from the other owners, by anti-entropy."""

    hints_per_s: int = 2_000
    """How many hints a node delivers to one owner a second."""

    repair_interval_ms: int = 60_000
    """Each partition is compared with each other owner about this often."""

    repair_bytes_per_s: int = 8 * 1024 * 1024
    """How much the exchanges that a node begins may send a second, both sides together."""

    transfer_bytes_per_s: int = 32 * 1024 * 1024
    """How much a node that takes partitions over receives a second; 0 for no bound."""

    scrub_interval_ms: int = 24 * 3_600_000
    """Each record is read and checked, and each tombstone considered, about this often."""

    write_deadline_ms: int = WRITE_DEADLINE_MAX_MS
    """No write is applied later than so long after it was asked for. It must be the same on every node."""

    grace_ms: int = 24 * 3_600_000
    """Youngest tombstone that may be reaped, and how long a node may be away before it counts as new. At least
    twice the write deadline: a write that the tombstone does not cover may still be on its way."""

    def lasts(self, asked_ms: int) -> int:
        """How long a request may live: as was asked, by default `deadline_ms`, never beyond the write deadline."""
        return min(asked_ms or self.deadline_ms, self.write_deadline_ms)

    def problems(self) -> list[str]:
        """What is wrong with these values, one sentence each; empty when they can be used."""
        found = []
        if not 1 <= self.max_pair_bytes <= PAIR_BYTES_CEILING:
            found.append(f"max_pair_bytes must be 1..{PAIR_BYTES_CEILING}, not {self.max_pair_bytes}")
        if not WRITE_DEADLINE_MIN_MS <= self.write_deadline_ms <= WRITE_DEADLINE_MAX_MS:
            found.append(f"write_deadline_ms must be {WRITE_DEADLINE_MIN_MS}..{WRITE_DEADLINE_MAX_MS}")
        if not 1 <= self.deadline_ms <= self.write_deadline_ms:
            found.append(f"deadline_ms must be 1..{self.write_deadline_ms}, not {self.deadline_ms}")
        if self.grace_ms < 2 * self.write_deadline_ms:
            found.append(f"grace_ms must be at least {2 * self.write_deadline_ms}, twice write_deadline_ms")
        if not 1 <= self.hints_per_s <= HINTS_PER_S_CEILING:
            found.append(f"hints_per_s must be 1..{HINTS_PER_S_CEILING}, not {self.hints_per_s}")
        for name in ("repair_interval_ms", "scrub_interval_ms"):
            if getattr(self, name) < 1_000:
                found.append(f"{name} must be at least 1000, not {getattr(self, name)}")
        for name in (
            "memtable_bytes", "cache_bytes", "compress_min_bytes", "avoid_ms", "hint_bytes", "hint_age_ms",
            "repair_bytes_per_s", "transfer_bytes_per_s",
        ):  # fmt: skip
            if getattr(self, name) < 0:
                found.append(f"{name} must not be negative")
        return found
