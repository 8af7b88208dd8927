"""What is asked before the shape of a cluster is changed: is there such a node, and what would it cost? Pure.

Promises: a name that cannot be meant is refused before anything is staged; what would leave fewer copies, or
throw data away, is a risk in words. Never: decides; the nodes do.
"""

from __future__ import annotations

from collections.abc import Sequence

from kvctl.errors import Invalid, KvError, Refused
from kvctl.health import silent, up_of
from kvctl.local import NoSuchObject
from kvctl.settings import NAME
from kvnode.protocol.messages import Change, ChangeKind, ClusterReport
from kvnode.protocol.ring import majority


def newcomer_problem(told: ClusterReport, node: str) -> KvError | None:
    """Why a node cannot become a member, as far as the cluster knows it."""
    ring = told.ring
    if not NAME.fullmatch(node):
        return Invalid(f"{node!r} is no name: letters, digits and ._- only, 64 at most", "kvctl node ls")
    if any(member.id == node for member in ring.members):
        return Invalid(f"{node} is a member already", "kvctl status")
    if any(member.id == node for member in ring.removed):
        return Invalid(
            f"{node} was removed from this cluster, and a removed name never returns",
            "kvctl node add: another name, and an empty directory",
        )
    if all(o.member.id != node for o in told.outside):
        return NoSuchObject(
            f"no node {node} waits outside this cluster",
            f"kvctl node add {node}, or kvnode run --name {node} --join HOST:PORT of a member",
        )
    return None


def member_problem(told: ClusterReport, node: str) -> KvError | None:
    """Why a node cannot leave or be replaced: it is no member."""
    if any(member.id == node for member in told.ring.members):
        return None
    if any(one.member.id == node for one in told.outside):
        return NoSuchObject(f"{node} is no member: it waits outside, and owns nothing", f"kvctl node stop {node}")
    return NoSuchObject(f"the cluster has no member {node}", "kvctl node ls")


def leaving_risk(told: ClusterReport, node: str, staged: Sequence[Change]) -> str:
    """What it would cost that this node leaves too; empty when every key keeps its copies."""
    joins = sum(c.kind == ChangeKind.JOIN for c in staged)
    goes = {c.node for c in staged if c.kind == ChangeKind.LEAVE} | {*told.ring.leaving, node}
    left = len(told.ring.members) + joins - len(goes)
    if left >= told.ring.n:
        return ""
    return f"{left} members would be left for n={told.ring.n}: each key would have {left} copies"


def removal_problem(told: ClusterReport, node: str) -> KvError | None:
    """Why a node must not be removed by force: there is a better way."""
    problem = member_problem(told, node)
    if problem is not None:
        return problem
    if node not in silent(told):
        return Refused(f"{node} answers: what is only there would be thrown away", f"kvctl cluster leave {node}")
    members, up = len(told.ring.members), len(up_of(told))
    if up >= majority(members):
        return Refused(
            f"{up} of {members} members are up, a majority: nothing need be lost",
            f"kvctl cluster replace {node} NEW, or kvctl cluster leave {node}",
        )
    return None


def removal_risk(told: ClusterReport, nodes: Sequence[str]) -> str:
    """What is lost with these nodes."""
    ring = told.ring
    gone = {i for i, member in enumerate(ring.members) if member.id in nodes}
    nobody = sum(gone.issuperset(owners) for owners in ring.owners)
    short = sum(len(gone.intersection(owners)) >= majority(len(owners)) for owners in ring.owners)
    return (
        f"what only {', '.join(nodes)} had is lost: all copies of {nobody} partitions, "
        f"and writes of {short - nobody} more that had a majority there"
    )
